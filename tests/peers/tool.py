"""Programs of other people, from the machine's packages: curl, nghttp, openssl, chromium ..."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest
from tests.peers.streams import PATIENCE

PACKAGES = {
    "chromium": "chromium",
    "curl": "curl",
    "nghttp": "nghttp2-client",
    "h2load": "nghttp2-client",
    "kubectl": "kubernetes-client",
    "openssl": "openssl",
    "promtool": "prometheus",
}


def require(program: str) -> None:
    """Skip the test where a program is not installed, but not in CI: there it fails."""
    if shutil.which(program) is None:
        missing = f"{program} is missing, install the package {PACKAGES[program]}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


async def run(program: str, *arguments: str) -> str:
    """What a program printed, once it ended with status 0. Skips as `require`."""
    require(program)
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]
    text = output.decode()
    assert process.returncode == 0, f"{program} ended with status {process.returncode}: {text}"
    return text
