"""`konnectivity certs`: make certificates, show them, renew them, and move to another CA.

Exit statuses: 0 done, 1 it failed or something is wrong with the certificates, 2 the command line
or what it names is wrong. Nothing of a private key is ever printed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from konnectivity.cli import certs_report
from konnectivity.cli.flags import CommandLine, parse
from konnectivity.cli.run import FAILED, MISUSED, OK, complain, guard, has_told
from konnectivity.errors import CertificateError, ConfigError
from konnectivity.flag import flag
from konnectivity.pki.authority import BACKDATED, LEAF_LIFETIME, Authority
from konnectivity.pki.directory import Directory
from konnectivity.pki.inspection import examine
from konnectivity.pki.issuing import add, initialise, new_authority, settle, supplied_authority
from konnectivity.pki.role import Leaf, Role
from konnectivity.pki.rotation import AFTER, advance, progress, roll_back
from konnectivity.pki.state import State

DIRECTORY: Final = "pki"
OUTPUTS: Final = ("table", "json")


@dataclass(frozen=True, slots=True)
class InitOptions:
    """Flags of `certs init`. Durations are seconds."""

    directory: str = flag(DIRECTORY, "Where the certificates are made; empty or not there yet.")
    server_names: tuple[str, ...] = flag(
        (), "Names and IP addresses that agents reach the server by; required."
    )
    frontend_names: tuple[str, ...] = flag(
        (),
        "Names and IP addresses that kube-apiserver reaches the server by over TCP; empty: no "
        "certificates for that.",
    )
    leaf_lifetime: float = flag(LEAF_LIFETIME, "How long certificates are valid; at least 1h.")
    ca_cert: str = flag("", "Certificate of a CA to issue with, a PEM file; empty: a new one.")
    ca_key: str = flag("", "Private key of --ca-cert; it is copied.")


@dataclass(frozen=True, slots=True)
class IssueOptions:
    """Flags of `certs issue`."""

    directory: str = flag(DIRECTORY, "Where the certificates are.")
    name: str = flag("", "Common name of the certificate and name of its folder; required.")
    role: str = flag("agent", "What it is for: server, frontend-server, frontend-client or agent.")
    names: tuple[str, ...] = flag((), "Its DNS names and IP addresses; what serves needs some.")
    replace: bool = flag(False, "Replace the certificate of this name.")


@dataclass(frozen=True, slots=True)
class ShowOptions:
    """Flags of `certs show`."""

    directory: str = flag(DIRECTORY, "Where the certificates are.")
    output: str = flag("table", "The form: table or json.", short="o")


@dataclass(frozen=True, slots=True)
class RotateOptions:
    """Flags of `certs rotate`. Durations are seconds."""

    directory: str = flag(DIRECTORY, "Where the certificates are.")
    all: bool = flag(False, "Renew all certificates, not only those that are due.")
    ca: bool = flag(
        False, "Take the next step to another CA: trust both, reissue, drop the old one."
    )
    after: float = flag(
        AFTER, "With --ca: how long a step must be over before the next one begins."
    )
    status: bool = flag(False, "With --ca: only show how far it has come.")
    rollback: bool = flag(False, "With --ca: go one step back.")
    ca_cert: str = flag("", "With --ca: certificate of the new CA; empty: one is made.")
    ca_key: str = flag("", "With --ca: private key of --ca-cert; it is copied.")
    output: str = flag("table", "With --status, the form: table or json.", short="o")


def init(options: InitOptions) -> int:
    """Make the CA and the first certificates."""
    if not options.server_names:
        raise ConfigError("--server-names: needs the names or IP addresses that agents connect to")
    if options.leaf_lifetime < 12 * BACKDATED:
        raise ConfigError("--leaf-lifetime: must be at least 1h")
    leaves = [Leaf("server", Role.SERVER, _unique(options.server_names)), Leaf("agent", Role.AGENT)]
    if options.frontend_names:
        leaves += [
            Leaf("frontend-server", Role.FRONTEND_SERVER, _unique(options.frontend_names)),
            Leaf("frontend-client", Role.FRONTEND_CLIENT),
        ]
    now = time.time()
    initialise(
        _path(options.directory),
        State(tuple(leaves), lifetime=options.leaf_lifetime),
        authority=_supplied(options.ca_cert, options.ca_key) or new_authority(now=now),
        now=now,
        tell=_tell,
    )
    return OK


def issue(options: IssueOptions) -> int:
    """Issue one more certificate."""
    if options.role not in list(Role):
        raise ConfigError(f"--role: {options.role} is none of {', '.join(Role)}")
    leaf = Leaf(options.name, Role(options.role), _unique(options.names))
    with Directory.changing(_path(options.directory)) as directory:
        add(directory, leaf, now=time.time(), tell=_tell, replacing=options.replace)
    return OK


def show(options: ShowOptions) -> int:
    """Print what there is; 1 if something is wrong with it."""
    _check_output(options.output)
    now = time.time()
    directory = Directory(_path(options.directory))
    findings = examine(directory, now=now)
    rotation = progress(directory, now=now)
    if options.output == "json":
        _print_json(certs_report.as_json(directory, findings, rotation))
    else:
        certs_report.print_tables(directory, findings, rotation, now=now)
    return FAILED if findings.all_problems else OK


def rotate(options: RotateOptions) -> int:
    """Renew what is due, or go one step on to another CA."""
    _check_output(options.output)
    if options.after < 0:
        raise ConfigError("--after: must not be negative")
    now, path = time.time(), _path(options.directory)
    if not options.ca:
        _refuse_without_ca(options)
        with Directory.changing(path) as directory:
            if not settle(directory, now=now, tell=_tell, everything=options.all):
                _tell("no certificate is due")
        return OK
    if options.all or (options.status and options.rollback):
        raise ConfigError("--ca: goes with one of --status and --rollback, and not with --all")
    if options.status:
        found = progress(Directory(path), now=now, after=options.after)
        if options.output == "json":
            _print_json(certs_report.progress_as_json(found))
        else:
            certs_report.print_progress(found)
        return OK
    supplied = _supplied(options.ca_cert, options.ca_key)
    if options.rollback and supplied:
        raise ConfigError("--ca-cert: has no place with --rollback")
    with Directory.changing(path) as directory:
        if options.rollback:
            roll_back(directory, now=now, after=options.after, tell=_tell)
        else:
            advance(directory, now=now, after=options.after, tell=_tell, supplied=supplied)
    return OK


def _refuse_without_ca(options: RotateOptions) -> None:
    for name in ("status", "rollback", "ca_cert", "ca_key"):
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')}: needs --ca")


def _supplied(certificate: str, key: str) -> Authority | None:
    if bool(certificate) != bool(key):
        raise ConfigError("--ca-cert and --ca-key: are needed together")
    return supplied_authority(Path(certificate), Path(key)) if certificate else None


def _path(directory: str) -> Path:
    if not directory:
        raise ConfigError("--directory: must not be empty")
    return Path(directory)


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _check_output(output: str) -> None:
    if output not in OUTPUTS:
        raise ConfigError(f"--output: {output} is none of {', '.join(OUTPUTS)}")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _print_json(content: object) -> None:
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class Action:
    """One row of the table below."""

    run: Callable[[Any], int]
    options: type
    about: str
    examples: Sequence[str]


ACTIONS: Final = {
    "init": Action(
        init,
        InitOptions,
        "Make a CA, and certificates for server and agent; with --frontend-names for a frontend "
        "over TCP, too.",
        (
            "{command} --server-names=konnectivity.example.com,10.0.0.1",
            "{command} --server-names=10.0.0.1 --ca-cert=ca.crt --ca-key=ca.key",
        ),
    ),
    "issue": Action(
        issue,
        IssueOptions,
        "Issue one more certificate.",
        (
            "{command} --name=agent-eu",
            "{command} --name=server --role=server --names=a.example.com,b.example.com --replace",
        ),
    ),
    "show": Action(
        show,
        ShowOptions,
        "Show all certificates, and what is wrong with them; the exit status is 1 if anything is.",
        ("{command} --directory=/etc/konnectivity/pki", "{command} -o json"),
    ),
    "rotate": Action(
        rotate,
        RotateOptions,
        "Renew certificates at two thirds of their life, or move to another CA; call it daily, or "
        "once for each step to the other CA. Programs that run take the new files over by "
        "themselves.",
        (
            "{command}",
            "{command} --all",
            "{command} --ca            # three times, with the time of --after in between",
            "{command} --ca --status",
        ),
    ),
}


def command(argv: Sequence[str]) -> int:
    """Run `konnectivity certs` with `argv`; return the exit status."""
    word, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if word in ("-h", "--help"):
        return _help()
    action = ACTIONS.get(word)
    if action is None:
        return complain(
            f"unknown action: {word}; konnectivity certs has {', '.join(ACTIONS)}", status=MISUSED
        )
    return guard(lambda: _run(action, rest, f"konnectivity certs {word}"))


def _run(action: Action, argv: Sequence[str], name: str) -> int:
    try:
        line: CommandLine[Any] = parse(action.options, argv)
    except ConfigError as error:
        raise ConfigError(f"{error}; see {name} --help") from error
    if has_told(line, action.options, command=name, of=action):
        return OK
    if line.warnings:
        raise ConfigError(f"{line.warnings[0]}; see {name} --help")
    try:
        return action.run(line.options)
    except OSError as error:  # such as a folder of somebody else
        cause = (error.strerror or str(error)).lower()
        raise CertificateError(f"{error.filename or name}: {cause}") from error


def _help() -> int:
    width = max(map(len, ACTIONS))
    lines = ["Usage: konnectivity certs <action> [flags]", "", "Actions:"]
    lines += [f"  {name:{width}}  {_summary(each)}" for name, each in ACTIONS.items()]
    lines += ["", "Examples:"]
    lines += [
        f"  {each.examples[0].format(command=f'konnectivity certs {name}')}"
        for name, each in ACTIONS.items()
    ]
    lines += ["", "`konnectivity certs <action> --help` lists the flags of an action.", ""]
    sys.stdout.write("\n".join(lines))
    return OK


def _summary(action: Action) -> str:
    """The first part of what it is about."""
    return f"{action.about.partition(';')[0].rstrip('.')}."
