"""The flags of `konnectivity doctor`, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from konnectivity.diagnose import sources
from konnectivity.diagnose.case import SETTLING
from konnectivity.diagnose.catalogue import CODES, NOT_CHECKED
from konnectivity.diagnose.sources import SourceOptions
from konnectivity.flag import absence, flag
from konnectivity.gotext import quote

OUTPUTS: Final = ("table", "short", "json", "junit")
MODES: Final = ("grpc", "http-connect")
FRONTEND: Final = "/etc/kubernetes/konnectivity-server/konnectivity-server.socket"


@dataclass(frozen=True)
class DoctorOptions(SourceOptions):
    """All flags of the command."""

    flags_title: ClassVar[str] = "What to look at"

    pre: bool = flag(
        False, "Before the installation: try the way from here to the servers, and nothing else."
    )
    node: bool = flag(
        False, "On a node, without the cluster: try the way, and ask the agent that runs here."
    )
    probe: bool = flag(
        False, "Dial kubelets, webhooks and services through the frontend of a server here, too."
    )
    watch: bool = flag(False, "Begin again after --interval, until it is stopped.")
    interval: float = flag(30.0, "Time between two rounds of --watch.")
    target: tuple[str, ...] = flag(
        (),
        "Where agents find servers, host or host:port; repeat it. Empty: the server of --spec.",
    )
    ca_cert: str = flag("", "CA bundle of the servers' certificates, as agents have it.")
    agent_cert: str = flag("", "The agents' client certificate, if they have one.")
    agent_key: str = flag("", "Its private key.")
    token_file: str = flag("", "An agent's token, to look at what it says of itself.")
    audience: str = flag("system:konnectivity-server", "The audience that it must have.")
    ntp_server: str = flag("", "A time server, host or host:port, to compare this clock with.")
    origin: str = flag("", "What to call this machine in the output.")
    frontend: str = flag(FRONTEND, "Unix socket of the server's frontend, for --probe.")
    frontend_mode: str = flag("grpc", "What it speaks: grpc or http-connect.")
    dial: tuple[str, ...] = flag((), "Further addresses to dial with --probe, host:port.")
    egress_config: str = flag("", "kube-apiserver's file with its egress selector.")
    spec: str = flag("", "Specification of the agents (TOML), to compare the cluster with.")
    settling: float = flag(
        SETTLING, "For so long after its start nobody expects an agent to be everywhere."
    )
    suppress: tuple[str, ...] = flag((), "Codes not to check, such as KNC105.")
    output: str = flag("table", "Format: table, short, json or junit.", short="o")
    verbose: bool = flag(False, "Show what is well, skipped and not asked, too.")

    @property
    def is_local(self) -> bool:
        """Whether the way from here is tried."""
        return self.pre or self.node


def problems(options: DoctorOptions) -> Iterator[str]:
    """All that is wrong with the flags, a line each."""
    yield from sources.problems(options)
    if options.pre and options.node:
        yield "pre and node exclude each other: pre is for before the installation"
    if options.output not in OUTPUTS:
        yield f"output must be {', '.join(OUTPUTS)}, not {quote(options.output)}"
    if options.frontend_mode not in MODES:
        yield f"frontend-mode must be grpc or http-connect, not {quote(options.frontend_mode)}"
    if options.is_local and not options.target and not options.spec:
        yield "pre and node need to know where the servers are: --target=host:port, or --spec"
    if bool(options.agent_cert) != bool(options.agent_key):
        yield "agent-cert and agent-key belong together, one is missing"
    for name in ("ca_cert", "agent_cert", "agent_key", "spec"):
        path = getattr(options, name)
        if path and (problem := absence(path)):
            yield f"{name.replace('_', '-')}: {problem}"
    for code in options.suppress:
        if code not in CODES and code not in NOT_CHECKED:
            shape = "there is no such check" if re.fullmatch(r"KNC\d{3}", code) else "is no code"
            yield f"suppress: {quote(code)}: {shape}; see docs/checks/README.md"
    for name in ("interval", "settling"):
        if getattr(options, name) < 0:
            yield f"{name} must be >= 0s"
