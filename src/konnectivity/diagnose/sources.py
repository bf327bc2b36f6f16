"""Where facts come from: admin addresses of servers, and a cluster. Data, and what names it.

    sources = from_options(options, os.environ)

Flags win over the configuration file, which wins over the defaults. The file names several
installations, as contexts; the keys of one are the flags:

    context = "prod"
    [contexts.prod]
    server = ["https://10.0.0.11:8095", "https://10.0.0.12:8095"]
    kubeconfig = "/etc/kubernetes/admin.conf"
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from konnectivity.errors import ConfigError
from konnectivity.flag import absence, flag, flags_of
from konnectivity.gotext import quote
from konnectivity.kube import heartbeat
from konnectivity.kube.kubeconfig import ACCOUNT
from konnectivity.kube.selector import check_selector

DEFAULT_SERVER: Final = "http://127.0.0.1:8095"
ADMIN_PORT: Final = 8095
CONFIG: Final = "KONNECTIVITY_CONFIG"
TOKEN: Final = "KONNECTIVITY_TOKEN"  # noqa: S105 - the name of a variable
LARGEST_TOKEN: Final = 64 << 10
TUNNELS: Final = 1000


@dataclass(frozen=True, slots=True)
class ServerSource:
    """One admin address: `http://`, `https://` or `unix:` and a path.

    `guessed`: nobody named it, it is where a server on this machine would be.
    """

    url: str
    token: str = dataclasses.field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class ClusterSource:
    """One cluster, and where its agents are. An empty `kubeconfig` is that of the pod we run in."""

    kubeconfig: str
    namespace: str = "kube-system"
    selector: str = "k8s-app=konnectivity-agent"
    lease_namespace: str = "kube-system"
    lease_selector: str = "k8s-app=konnectivity-server"
    heartbeat_namespace: str = heartbeat.NAMESPACE


@dataclass(frozen=True, slots=True)
class Sources:
    """All that is asked. `timeout` is for each question, in seconds.

    `tunnels` is how many each server lists at most. `events`, `metrics` and `nodes` say whether
    these are asked for, too.
    """

    servers: tuple[ServerSource, ...] = ()
    cluster: ClusterSource | None = None
    timeout: float = 5.0
    tunnels: int = TUNNELS
    events: bool = True
    metrics: bool = True
    nodes: bool = False


@dataclass(frozen=True)
class SourceOptions:
    """The flags of every command that looks at an installation."""

    flags_title: ClassVar[str] = "Where to look"

    server: tuple[str, ...] = flag(
        (),
        "Admin address of a server: http://host:port, https://host:port or unix:/path; repeat it "
        "for each. Empty: port 8095 of this machine.",
    )
    server_token_file: str = flag(
        "", f"File with the bearer token for them; empty: the variable {TOKEN}, or none."
    )
    server_ca: str = flag("", "CA bundle of their certificates; empty: the system's.")
    server_cert: str = flag("", "Client certificate for them, a PEM file.")
    server_key: str = flag("", "Private key of --server-cert.")
    kubeconfig: str = flag(
        "", "Kubeconfig of the cluster; empty: KUBECONFIG, ~/.kube/config, or the pod's account."
    )
    no_cluster: bool = flag(False, "Do not ask the Kubernetes API.")
    namespace: str = flag("kube-system", "Namespace of the agents.")
    selector: str = flag("k8s-app=konnectivity-agent", "Label selector of the agents' pods.")
    lease_namespace: str = flag("kube-system", "Namespace of the servers' leases.")
    heartbeat_namespace: str = flag(heartbeat.NAMESPACE, "Namespace of the agents' heartbeats.")
    timeout: float = flag(5.0, "Time limit of each question.")
    config: str = flag(
        "",
        f"File with the flags of several installations; empty: the variable {CONFIG}, else "
        "~/.config/konnectivity/config.toml if there is one.",
    )
    context: str = flag("", "Which of them; empty: the one that the file names.")


def problems(options: SourceOptions) -> Iterator[str]:
    """All that is wrong with the flags, a line each."""
    for url in options.server:
        if problem := url_problem(url):
            yield f"server {quote(url)} {problem}"
    for name in ("server_token_file", "server_ca", "server_cert", "server_key", "kubeconfig"):
        path = getattr(options, name)
        if path and (problem := absence(str(Path(path).expanduser()))):
            yield f"{name.replace('_', '-')}: {problem}"
    if bool(options.server_cert) != bool(options.server_key):
        yield "server-cert and server-key belong together, one is missing"
    if options.timeout <= 0:
        yield "timeout must be > 0s"
    try:
        check_selector(options.selector)
    except ValueError as error:
        yield f"selector {quote(options.selector)}: {error}"


def url_problem(url: str) -> str:
    """Why a text is no admin address; empty if it is one."""
    if url.startswith("unix:"):
        return "" if url.removeprefix("unix:").startswith("/") else "needs a path: unix:/path"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound:
        return "is not http://host:port, https://host:port or unix:/path"
    if parts.username or parts.password:
        return "has a password in it: give a token by --server-token-file"
    return ""


def from_options(options: SourceOptions, environ: Mapping[str, str]) -> Sources:
    """What the options amount to, which are taken to be sound (`problems`).

    Raises:
        ConfigError: the token file cannot be read.
    """
    token = _token(options.server_token_file, environ)
    servers = tuple(
        ServerSource(
            url.rstrip("/"), token, options.server_ca, options.server_cert, options.server_key
        )
        for url in options.server
    )
    return Sources(
        servers=servers or (ServerSource(DEFAULT_SERVER, token, guessed=True),),
        cluster=None if options.no_cluster else _cluster(options, environ),
        timeout=options.timeout,
    )


def _token(path: str, environ: Mapping[str, str]) -> str:
    if not path:
        return environ.get(TOKEN, "").strip()
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(LARGEST_TOKEN + 1)
    except OSError as error:
        raise ConfigError(f"server-token-file {quote(path)}: {error.strerror}") from error
    token, _, _ = data.strip().partition(b"\n")  # the server's own file may have several
    if not token or len(data) > LARGEST_TOKEN or not token.isascii():
        raise ConfigError(f"server-token-file {quote(path)} holds no token: a line of ASCII")
    return token.decode().strip()


def _cluster(options: SourceOptions, environ: Mapping[str, str]) -> ClusterSource | None:
    """None if nothing says where a cluster is."""
    found = options.kubeconfig or _usual_kubeconfig(environ)
    in_pod = environ.get("KUBERNETES_SERVICE_HOST") and Path(ACCOUNT, "token").exists()
    if not found and not in_pod:
        return None
    return ClusterSource(
        kubeconfig=found,
        namespace=options.namespace,
        selector=options.selector,
        lease_namespace=options.lease_namespace,
        heartbeat_namespace=options.heartbeat_namespace,
    )


def _usual_kubeconfig(environ: Mapping[str, str]) -> str:
    """The first file that `KUBECONFIG` names and that is there, else the one in the home."""
    named = [each for each in environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    home = [str(Path(environ["HOME"], ".kube", "config"))] if environ.get("HOME") else []
    return next((each for each in named or home if Path(each).exists()), next(iter(named), ""))


# The configuration file


def configured(given: SourceOptions, environ: Mapping[str, str]) -> dict[str, Any]:
    """Defaults for fields of `SourceOptions` from the context of the configuration file.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong: which key, and why.
    """
    path = _config_path(given.config, environ)
    if path is None:
        if given.context:
            raise ConfigError(f"context {quote(given.context)}: there is no configuration file")
        return {}
    content = _read(path)
    contexts = content.get("contexts", {})
    name = given.context or content.get("context", "")
    if not isinstance(contexts, dict) or not isinstance(name, str):
        raise ConfigError(f"{path}: context must be a name, contexts must be tables")
    if not name:
        return {}
    if not isinstance(contexts.get(name), dict):
        known = ", ".join(sorted(contexts)) or "none"
        raise ConfigError(f"{path}: there is no context {quote(name)}; known: {known}")
    return _values(contexts[name], where=f"{path}: contexts.{name}")


def _config_path(given: str, environ: Mapping[str, str]) -> Path | None:
    if named := given or environ.get(CONFIG, ""):
        return Path(named).expanduser()
    home = environ.get("XDG_CONFIG_HOME") or (
        str(Path(environ["HOME"], ".config")) if environ.get("HOME") else ""
    )
    usual = Path(home, "konnectivity", "config.toml") if home else None
    return usual if usual is not None and usual.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"configuration file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _values(context: dict[str, Any], *, where: str) -> dict[str, Any]:
    known = {
        each.name: each
        for each in flags_of(SourceOptions)
        if each.name not in ("config", "context")
    }
    found: dict[str, Any] = {}
    for key, value in context.items():
        each = known.get(key)
        if each is None:
            raise ConfigError(f"{where}: {quote(key)} is none of {', '.join(known)}")
        texts = value if isinstance(value, list) else [value]
        if isinstance(value, list) and not isinstance(each.default, tuple):
            raise ConfigError(f"{where}: {key} takes one value, not a list")
        if isinstance(each.default, tuple):
            found[each.field] = tuple(str(text) for text in texts)
            continue
        try:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            found[each.field] = each.kind.parse(text)
        except ValueError as error:
            raise ConfigError(f"{where}: {key} = {value!r}: {error}") from None
    return found
