"""The control plane's side of an installation, as files to be put in place by hand or by a tool.

Nothing of it is applied to the cluster: it must be there before the cluster's network works.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath as Path
from typing import Final

from konnectivity.gotext import quote
from konnectivity.lifecycle.objects.control_plane import (
    PROTOCOLS,
    egress_selector,
    kubeconfig,
    sidecar,
    static_pod,
)
from konnectivity.lifecycle.objects.metadata import Object
from konnectivity.lifecycle.objects.server import asks_kubernetes, systemd_unit
from konnectivity.lifecycle.rendering.render import to_yaml
from konnectivity.lifecycle.specification.control_plane_spec import ControlPlaneSpec
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.tunnel.strategies import STRATEGIES, split

STATIC_POD: Final = "konnectivity-server.yaml"
SIDECAR: Final = "kube-apiserver-sidecar.yaml"
UNIT: Final = "konnectivity-server.service"
EGRESS: Final = "egress-selector-configuration.yaml"
KUBECONFIG: Final = "konnectivity-server.kubeconfig"


def files(agents: AgentSpec, plane: ControlPlaneSpec) -> dict[str, str]:
    """Texts by file name: static pod, sidecar, systemd unit, egress selector, kubeconfig.

    The first three are the same server in three forms, of which one is to be used.
    """
    flag = f"--egress-selector-config-file={plane.egress_configuration}"
    found = {
        STATIC_POD: _text(
            f"/etc/kubernetes/manifests/{STATIC_POD}: the server as a static pod. kube-apiserver "
            f"mounts {plane.socket_directory} too, and gets {flag}",
            static_pod(agents, plane),
        ),
        SIDECAR: _text(
            "kubectl patch deployment kube-apiserver --patch-file: the server as a sidecar. "
            f"Also give kube-apiserver {flag}",
            sidecar(agents, plane),
        ),
        UNIT: systemd_unit(agents, plane),
        EGRESS: _text(
            f"{plane.egress_configuration}: kube-apiserver reads it with {flag}",
            egress_selector(plane),
        ),
    }
    if asks_kubernetes(agents):
        found[KUBECONFIG] = _text(
            f"{plane.server_kubeconfig}: its certificate has the common name {agents.server_user} "
            "and no organisation: the objects of `konnectivity manifests` give it all its rights.",
            kubeconfig(agents, plane),
        )
    return found


def problems(plane: ControlPlaneSpec) -> Iterator[str]:
    """What is wrong with it, a line each."""
    if plane.frontend not in PROTOCOLS:
        yield f"frontend must be {' or '.join(PROTOCOLS)}, not {quote(plane.frontend)}"
    if plane.server_count < 1:
        yield f"server-count must be >= 1, got {plane.server_count}"
    for each in split(plane.proxy_strategies) or [""]:
        if each not in STRATEGIES:
            yield f"proxy-strategies: {quote(each)} is none of {', '.join(STRATEGIES)}"
    if not re.fullmatch(r"https://\S+", plane.api_server):
        yield f"api-server {quote(plane.api_server)} must be a URL that begins with https://"
    if len({Path(plane.server_kubeconfig).parent, Path(plane.egress_configuration).parent}) < 2:
        yield "server-kubeconfig and egress-configuration must be in directories of their own"
    for name, path in (
        ("socket-directory", plane.socket_directory),
        ("server-certificates", plane.server_certificates),
        ("server-kubeconfig", plane.server_kubeconfig),
        ("egress-configuration", plane.egress_configuration),
    ):
        if not re.fullmatch(r"/[^\s:]*[^\s:/]", path):
            yield f"{name} {quote(path)} must be an absolute path"


def _text(note: str, content: Object) -> str:
    return f"# {note}\n{to_yaml([content])}"
