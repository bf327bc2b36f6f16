"""Where the Kubernetes API is and who we are there: from a kubeconfig, or from the pod we run in.

lightkube reads both; this checks what it takes for granted, so that a mistake is one line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from konnectivity.errors import ConfigError

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig

ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its token, its namespace and the API's CA."""


def from_file(path: Path) -> SingleConfig:
    """The current context of a kubeconfig.

    Raises:
        ConfigError: with file, field and remedy.
    """
    import yaml  # type: ignore[import-untyped]
    from lightkube import KubeConfig
    from msgspec import ValidationError

    where = f"kubeconfig {path}"
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} is not YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{where} is not a kubeconfig: a mapping with clusters is wanted")
    names = {field: _named(content, field, where) for field in ("clusters", "contexts", "users")}
    _check_context(content, names, where)
    try:
        config = KubeConfig.from_dict({**content, "users": content.get("users") or []}, fname=path)
        return _complete(config.get(), path)
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


def _complete(config: SingleConfig | None, path: Path) -> SingleConfig:
    """`config` with what lightkube takes for granted: a user, files that exist."""
    from lightkube.config.models import User

    if config is None:
        raise ConfigError(f"kubeconfig {path}: current-context is not set")
    user = config.user or User()
    if user.token_file:
        user.token_file = str(config.abs_file(user.token_file))
    for field, name in (
        ("certificate-authority", config.cluster.certificate_auth),
        ("client-certificate", user.client_cert),
        ("client-key", user.client_key),
        ("tokenFile", user.token_file),
    ):
        if name and not os.access(config.abs_file(name), os.R_OK):
            raise ConfigError(
                f"kubeconfig {path}: file {config.abs_file(name)} of field {field} "
                "does not exist or cannot be read"
            )
    if bool(user.client_cert or user.client_cert_data) != bool(
        user.client_key or user.client_key_data
    ):
        raise ConfigError(
            f"kubeconfig {path}: client-certificate and client-key belong together, one is missing"
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
    return _complete(KubeConfig.from_service_account(account).get(), Path(account))


def one_line(text: object) -> str:
    """`str(text)` without line breaks: the libraries' messages have some."""
    return " ".join(str(text).split())
