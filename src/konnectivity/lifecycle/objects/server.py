"""The server beside kube-apiserver: its command line, its container, its unit."""

from __future__ import annotations

import math
from typing import Final

from konnectivity.gotext import format_duration
from konnectivity.lifecycle.objects.metadata import Object
from konnectivity.lifecycle.specification.control_plane_spec import ControlPlaneSpec
from konnectivity.lifecycle.specification.spec import AgentSpec

NAME: Final = "konnectivity-server"
COMMAND: Final = "/proxy-server"
HEALTH_PORT: Final = 8092
GRACE: Final = 20.0  # seconds that tunnels may go on when the server stops
STOPPED: Final = math.ceil(GRACE) + 10  # seconds until it is killed


def arguments(agents: AgentSpec, plane: ControlPlaneSpec) -> list[str]:
    """The server's flags, which ask of agents what the agents are given."""
    pki = plane.server_certificates
    found = [
        f"--mode={plane.frontend}",
        f"--uds-name={plane.socket}",
        "--server-port=0",
        f"--agent-port={agents.server_port}",
        f"--health-port={HEALTH_PORT}",
        f"--cluster-cert={pki}/tls.crt",
        f"--cluster-key={pki}/tls.key",
        f"--proxy-strategies={plane.proxy_strategies}",
        f"--graceful-shutdown-timeout={format_duration(GRACE)}",
    ]
    if agents.uses_certificate:
        found.append(f"--cluster-ca-cert={pki}/ca.crt")
        if plane.agent_identities:
            found.append(f"--agent-certificate-identities={','.join(plane.agent_identities)}")
    if agents.uses_token:
        found.append(f"--agent-namespace={agents.namespace}")
        found.append(f"--agent-service-account={agents.name}")
        found.append(f"--authentication-audience={agents.audience}")
    if asks_kubernetes(agents):
        found.append(f"--kubeconfig={plane.server_kubeconfig}")
    if agents.count_leases:
        found += ["--enable-lease-controller", f"--lease-namespace={agents.lease_namespace}"]
    else:
        found.append(f"--server-count={plane.server_count}")
    return found


def asks_kubernetes(agents: AgentSpec) -> bool:
    """Whether servers need the Kubernetes API."""
    return agents.uses_token or agents.count_leases


def container(agents: AgentSpec, plane: ControlPlaneSpec, mounts: list[Object]) -> Object:
    """The server's container. It has no readiness: kube-apiserver must start without agents."""
    return {
        "name": NAME,
        "image": plane.server_image or agents.image,
        "command": [COMMAND],
        "args": arguments(agents, plane),
        "ports": [
            {"name": "agent", "containerPort": agents.server_port, "protocol": "TCP"},
            {"name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
        ],
        "resources": {"requests": {"cpu": "25m", "memory": "64Mi"}, "limits": {"memory": "768Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": HEALTH_PORT, "scheme": "HTTP"},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def systemd_unit(agents: AgentSpec, plane: ControlPlaneSpec) -> str:
    """A unit for a server without containers, with no right on the machine but its own."""
    flags = " \\\n    ".join(_quoted(each) for each in arguments(agents, plane))
    folder = plane.socket_directory
    writable = f"ReadWritePaths={folder}"
    if folder.startswith("/run/"):
        writable = f"RuntimeDirectory={folder.removeprefix('/run/')}\nRuntimeDirectoryMode=0750"
    return f"""\
# /etc/systemd/system/{NAME}.service
# The socket belongs to the group: let it be that of kube-apiserver.
[Unit]
Description=Konnectivity server
After=network-online.target
Wants=network-online.target
Before=kube-apiserver.service

[Service]
User=konnectivity
Group=kube-apiserver
ExecStart=/usr/local/bin/proxy-server \\
    {flags}
{writable}
Restart=always
RestartSec=1
TimeoutStopSec={STOPPED}
LimitNOFILE=1048576
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


def _quoted(argument: str) -> str:
    """As systemd reads a command line: no specifiers, no variables."""
    plain = argument.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if " " in plain else plain
