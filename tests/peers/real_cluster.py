"""The cluster that KUBECONFIG names, for the tests that need one (`make e2e`)."""

from __future__ import annotations

import os
import subprocess


def absence() -> str:
    """Why it cannot be used, in a line; empty if it answers."""
    path = os.environ.get("KUBECONFIG", "")
    if not path:
        return "KUBECONFIG names no cluster: make e2e KUBECONFIG=/path/to/kubeconfig"
    asked = ["kubectl", f"--kubeconfig={path}", "--request-timeout=5s", "get", "--raw=/version"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    return f"the cluster of {path} does not answer: {done.stderr.strip().rpartition(chr(10))[2]}"
