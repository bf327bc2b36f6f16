"""The commands: `konnectivity <command>`, and upstream's names `proxy-server`, `proxy-agent`.

Imports are as late as can be: the agent must load neither the server nor what only people's
eyes need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import NoReturn

from konnectivity.cli.run import MISUSED, OK, Program, complain, guard, start, version

SERVER_ABOUT = (
    "The Konnectivity server. It runs beside kube-apiserver, takes its connections (frontend) "
    "and carries them through agents, which dial in from the cluster."
)
SERVER_EXAMPLES = (
    "# kube-apiserver on the same machine, over a Unix socket; agents with certificates",
    "{command} --uds-name=/run/konnectivity/server.socket --server-port=0 \\",
    "    --cluster-cert=server.crt --cluster-key=server.key --cluster-ca-cert=agents-ca.crt",
    "",
    "# kube-apiserver elsewhere, over TCP with mutual TLS, gRPC and HTTP CONNECT side by side",
    "{command} --mode=grpc,http-connect \\",
    "    --server-cert=front.crt --server-key=front.key --server-ca-cert=apiserver-ca.crt \\",
    "    --cluster-cert=server.crt --cluster-key=server.key --cluster-ca-cert=agents-ca.crt",
)
AGENT_ABOUT = (
    "The Konnectivity agent. It runs in the cluster, keeps a connection to every server and "
    "opens TCP connections to nodes, pods and services on their behalf."
)
AGENT_EXAMPLES = (
    "# with a client certificate",
    "{command} --proxy-server-host=konnectivity.example.com --ca-cert=ca.crt \\",
    "    --agent-cert=agent.crt --agent-key=agent.key",
    "",
    "# with the token of its service account",
    "{command} --proxy-server-host=konnectivity.example.com --ca-cert=ca.crt \\",
    "    --service-account-token-path=/var/run/secrets/tokens/konnectivity-agent-token",
)
MANAGER_ABOUT = (
    "Keeps the agents of a cluster as specified: installs them, puts back what was deleted, and "
    "reverts what was changed, within a second. Of several managers one writes."
)
MANAGER_EXAMPLES = (
    "# what would be changed, and by whom it differs",
    "{command} --spec=agents.toml --kubeconfig=cluster.kubeconfig --dry-run",
    "",
    "# once, as an installer",
    "{command} --spec=agents.toml --kubeconfig=cluster.kubeconfig --once",
    "",
    "# standing, beside the control plane",
    "{command} --spec=agents.toml --kubeconfig=cluster.kubeconfig",
)


def main() -> NoReturn:
    """The console script `konnectivity`."""
    sys.exit(command(sys.argv[1:]))


def proxy_server() -> NoReturn:
    """The console script `proxy-server`."""
    sys.exit(_server(sys.argv[1:], "proxy-server"))


def proxy_agent() -> NoReturn:
    """The console script `proxy-agent`."""
    sys.exit(_agent(sys.argv[1:], "proxy-agent"))


def command(argv: Sequence[str]) -> int:
    """Run `konnectivity` with `argv`; return the exit status."""
    word, rest = (argv[0], argv[1:]) if argv else ("help", [])
    if word in ("-h", "--help"):
        word = "help"
    if word == "--version":
        word = "version"
    found = COMMANDS.get(word)
    if found is None:
        what = "flag" if word.startswith("-") else "command"
        return complain(
            f"unknown {what}: {word}{_hint(word)}; see konnectivity --help", status=MISUSED
        )
    return found.run(rest)


def _server(argv: Sequence[str], name: str = "konnectivity server") -> int:
    from konnectivity.server.options import ServerOptions, validate

    program = Program(
        name="server",
        options=ServerOptions,
        validate=validate,
        app="konnectivity.server.app:run",
        about=SERVER_ABOUT,
        examples=SERVER_EXAMPLES,
    )
    return start(program, argv, os.environ, command=name)


def _agent(argv: Sequence[str], name: str = "konnectivity agent") -> int:
    from konnectivity.agent.options import AgentOptions, validate

    program = Program(
        name="agent",
        options=AgentOptions,
        validate=validate,
        app="konnectivity.agent.app:run",
        about=AGENT_ABOUT,
        examples=AGENT_EXAMPLES,
    )
    return start(program, argv, os.environ, command=name)


def _manager(argv: Sequence[str], name: str = "konnectivity manager") -> int:
    from konnectivity.lifecycle.managing.options import ManagerOptions, validate

    program = Program(
        name="manager",
        options=ManagerOptions,
        validate=validate,
        app="konnectivity.lifecycle.managing.manager:run",
        about=MANAGER_ABOUT,
        examples=MANAGER_EXAMPLES,
    )
    return start(program, argv, os.environ, command=name)


def _demo(argv: Sequence[str]) -> int:
    run: Callable[[Sequence[str]], int] = resolve_name("konnectivity.demo.main:main")
    return guard(lambda: run(argv))


def _named(function: str) -> Callable[[Sequence[str]], int]:
    """A command whose module is imported when it runs."""

    def run(argv: Sequence[str]) -> int:
        found: Callable[[Sequence[str]], int] = resolve_name(f"konnectivity.cli.{function}")
        return found(argv)

    return run


def _version(argv: Sequence[str]) -> int:
    sys.stdout.write(version())
    return OK


def _help(argv: Sequence[str]) -> int:
    """`konnectivity help [command]`."""
    if argv and argv[0] not in ("help", "version"):
        return command([argv[0], "--help"])
    width = max(map(len, COMMANDS))
    lines = ["Usage: konnectivity <command> [flags]", "", "Commands:"]
    lines += [f"  {name:{width}}  {found.about}" for name, found in COMMANDS.items()]
    lines += ["", "Examples:", *(f"  {example}" for example in EXAMPLES)]
    lines += ["", "`konnectivity <command> --help` lists the flags of a command.", ""]
    sys.stdout.write("\n".join(lines))
    return OK


def _hint(word: str) -> str:
    import difflib  # only for a command line that is wrong

    close = difflib.get_close_matches(word, COMMANDS, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table below."""

    run: Callable[[Sequence[str]], int]
    about: str


COMMANDS = {
    "server": Command(_server, "Serve kube-apiserver beside it, as proxy-server does."),
    "agent": Command(_agent, "Open connections in the cluster, as proxy-agent does."),
    "manager": Command(_manager, "Keep the agents of a cluster installed, as specified."),
    "demo": Command(_demo, "Send real traffic through a throwaway server and agent."),
    "certs": Command(
        _named("certs:command"), "Make certificates, show and renew them, move to another CA."
    ),
    "manifests": Command(
        _named("manifests:main"), "Print the objects that put agents into a cluster."
    ),
    "install": Command(_named("install:install"), "Install the agents of a cluster, and wait."),
    "diff": Command(_named("diff:main"), "Show how a cluster differs from what was specified."),
    "upgrade": Command(_named("install:upgrade"), "Change the agents of a cluster, or go back."),
    "restart": Command(_named("restart:main"), "Restart agents one after another, or one."),
    "uninstall": Command(_named("uninstall:main"), "Take the agents out of a cluster; asks."),
    "status": Command(_named("status:main"), "Show agents, servers, and what is between them."),
    "top": Command(_named("top:main"), "The same, live: the busiest tunnels, rates, failures."),
    "doctor": Command(_named("doctor:main"), "Say what is wrong, where, and what to do."),
    "explain": Command(
        _named("explain:main"), "Show the way to a webhook or a node, and where it breaks."
    ),
    "bundle": Command(_named("bundle:main"), "Gather what support needs, without secrets."),
    "version": Command(_version, "Show the version."),
    "help": Command(_help, "Show this table, or the help of a command."),
}
EXAMPLES = (
    "konnectivity demo",
    "konnectivity server --help",
    "konnectivity agent --proxy-server-host=konnectivity.example.com --ca-cert=ca.crt",
)
