"""Where the Kubernetes API is and who we are there: from a kubeconfig, or from the pod we run in.

lightkube reads both; this checks what it takes for granted, so that a mistake is one line.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from konnectivity.errors import ConfigError

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig

ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its token, its namespace and the API's CA."""

_READING = threading.Lock()
"""Threads that begin with one type at once crash msgspec, which reads them for lightkube."""


def from_file(path: Path, context: str = "") -> SingleConfig:
    """A context of a kubeconfig, the current one if none is named.

    Raises:
        ConfigError: with file, field and remedy.
    """
    where = f"kubeconfig {path}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from error
    return _parse(content, where, path, context)


def from_content(content: bytes, where: str) -> SingleConfig:
    """The current context of a kubeconfig that stands for itself: it names no file or program.

    For kubeconfigs that others write: they must not have our files read, or programs run.
    `where` is what errors call it.

    Raises:
        ConfigError: with field and remedy.
    """
    config = _parse(content, where, None)
    cluster, user = config.cluster, config.user
    named = {
        "certificate-authority": cluster.certificate_auth,
        "client-certificate": user and user.client_cert,
        "client-key": user and user.client_key,
        "tokenFile": user and user.token_file,
        "exec": user and user.exec,
        "auth-provider": user and user.auth_provider,
    }
    if found := [field for field, value in named.items() if value]:
        raise ConfigError(
            f"{where}: field {', '.join(found)} names what is outside of it; "
            "`kubectl config view --raw --minify --flatten` puts files into it, and a token "
            "takes the place of a credential plugin"
        )
    return config


def _parse(content: bytes, where: str, path: Path | None, context: str = "") -> SingleConfig:
    """The context; files are relative to `path`, and not looked for without one."""
    import yaml  # type: ignore[import-untyped]
    from lightkube import KubeConfig
    from msgspec import ValidationError

    try:
        # With libyaml it takes a tenth of the time, which counts where there are many; without,
        # errors quote the line.
        fast = None if path else getattr(yaml, "CSafeLoader", None)
        parsed = yaml.load(content, fast or yaml.SafeLoader)  # noqa: S506 - both are safe
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} is not YAML: {one_line(error)}") from error
    if not isinstance(parsed, dict):
        raise ConfigError(f"{where} is not a kubeconfig: a mapping with clusters is wanted")
    names = {field: _named(parsed, field, where) for field in ("clusters", "contexts", "users")}
    if context:
        if context not in names["contexts"]:
            known = ", ".join(names["contexts"]) or "none"
            raise ConfigError(f"{where}: there is no context {context}; there are: {known}")
        parsed["current-context"] = context
    _check_context(parsed, names, where)
    try:
        with _READING:
            users = parsed.get("users") or []
            config = KubeConfig.from_dict({**parsed, "users": users}, fname=path)
        return _complete(config.get(), where, look=path is not None)
    except (ValidationError, KeyError, TypeError) as error:
        raise ConfigError(f"{where} is not a kubeconfig: {one_line(error)}") from error


def _named(content: dict[str, Any], field: str, where: str) -> dict[str, Any]:
    """The entries of one of a kubeconfig's lists, by name."""
    entries = content.get(field) or []
    kind = field[:-1]
    if not isinstance(entries, list) or not all(
        isinstance(each, dict) and "name" in each and isinstance(each.get(kind), dict)
        for each in entries
    ):
        raise ConfigError(f"{where}: field {field} must be a list of entries with name and {kind}")
    return {each["name"]: each[kind] for each in entries}


def _check_context(content: dict[str, Any], names: dict[str, dict[str, Any]], where: str) -> None:
    current = content.get("current-context")
    if not current:
        raise ConfigError(
            f"{where}: current-context is not set; choose one with "
            "`kubectl config use-context NAME`"
        )
    context = names["contexts"].get(current)
    if context is None:
        raise ConfigError(f"{where}: current-context {current} is not among its contexts")
    for kind in ("cluster", "user"):
        name = context.get(kind)
        if (kind == "cluster" or name) and name not in names[f"{kind}s"]:
            raise ConfigError(
                f"{where}: {kind} {name} of context {current} is not among its {kind}s"
            )
    url = names["clusters"][context["cluster"]].get("server") or ""
    if not str(url).startswith(("https://", "http://")):
        raise ConfigError(
            f"{where}: server {url!r} of cluster {context['cluster']} is not a URL such as "
            "https://10.0.0.1:6443"
        )


def _complete(config: SingleConfig | None, where: str, *, look: bool = True) -> SingleConfig:
    """`config` with what lightkube takes for granted: a user, files that exist (`look`)."""
    from lightkube.config.models import User

    if config is None:
        raise ConfigError(f"{where}: current-context is not set")
    user = config.user or User()
    if user.token_file and look:
        user.token_file = str(config.abs_file(user.token_file))
    for field, name in (
        ("certificate-authority", config.cluster.certificate_auth),
        ("client-certificate", user.client_cert),
        ("client-key", user.client_key),
        ("tokenFile", user.token_file),
    ):
        if look and name and not os.access(config.abs_file(name), os.R_OK):
            raise ConfigError(
                f"{where}: file {config.abs_file(name)} of field {field} "
                "does not exist or cannot be read"
            )
    if bool(user.client_cert or user.client_cert_data) != bool(
        user.client_key or user.client_key_data
    ):
        raise ConfigError(
            f"{where}: client-certificate and client-key belong together, one is missing"
        )
    return config._replace(user=user)


def from_pod(account: str = ACCOUNT) -> SingleConfig:
    """The cluster of the pod we run in, as its service account.

    Raises:
        ConfigError: this is no pod, or it has no service account.
    """
    from lightkube import KubeConfig

    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        if not os.environ.get(name):
            raise ConfigError(
                f"no Kubernetes API: --kubeconfig is empty and {name} is not set, so this is not "
                "a pod; set --kubeconfig"
            )
    for file in ("token", "namespace", "ca.crt"):
        if not os.access(Path(account, file), os.R_OK):
            raise ConfigError(
                f"no Kubernetes API: --kubeconfig is empty and {account}/{file} cannot be read; "
                "set --kubeconfig, or automountServiceAccountToken of the pod"
            )
    config = KubeConfig.from_service_account(account).get()
    return _complete(config, f"kubeconfig {account}")


def one_line(text: object) -> str:
    """`str(text)` without line breaks: the libraries' messages have some."""
    return " ".join(str(text).split())
