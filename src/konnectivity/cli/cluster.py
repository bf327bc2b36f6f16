"""Which cluster a command works on, and what it says when that cannot be done in one line."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from konnectivity.errors import ClusterError, ConfigError
from konnectivity.flag import flag
from konnectivity.gotext import quote
from konnectivity.kube.client import connect, connect_with, describe, failures
from konnectivity.kube.collection import status_of
from konnectivity.kube.kubeconfig import from_file
from konnectivity.net.loop import run as run_loop

if TYPE_CHECKING:
    from lightkube import AsyncClient

FORMATS: Final = ("text", "json")
QPS: Final = 50.0
BURST: Final = 100
UNAUTHORIZED: Final = 401

T = TypeVar("T")


@dataclass(frozen=True)
class ClusterOptions:
    """Flags that commands share which ask or change a cluster. Durations are seconds."""

    flags_title: ClassVar[str] = "Cluster"

    kubeconfig: str = flag(
        "", "Kubeconfig; empty: $KUBECONFIG, else ~/.kube/config, else that of the pod."
    )
    context: str = flag("", "Context of the kubeconfig; empty: its current one.")
    output: str = flag("text", "Format: text, or json for programs.", short="o")


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, and what people call the cluster behind it."""

    client: AsyncClient
    name: str


def problems(options: ClusterOptions) -> Iterator[str]:
    """What is wrong with them, a line each."""
    if options.output not in FORMATS:
        yield f"output must be {' or '.join(FORMATS)}, not {quote(options.output)}"
    if getattr(options, "timeout", 1.0) <= 0:
        yield "timeout must be > 0"


def on_cluster(options: ClusterOptions, job: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
    """Connect and run `job` to its end.

    Raises:
        ConfigError: the kubeconfig is wrong.
        ClusterError: the API cannot be reached or refuses, in one line.
    """
    # What goes wrong is said by the command itself.
    logging.getLogger("konnectivity").addHandler(logging.NullHandler())

    connection = _connect(options)

    async def main() -> T:
        try:
            return await job(connection)
        except failures() as error:
            raise ClusterError(_explained(error)) from error
        except BaseExceptionGroup as group:
            known, _ = group.split(failures())
            if known is None:
                raise
            raise ClusterError(_explained(_first(known))) from group
        finally:
            await connection.client.close()

    return run_loop(main)


def _connect(options: ClusterOptions) -> Connection:
    path = _path(options.kubeconfig)
    if not path:
        if options.context:
            raise ConfigError("context is for a kubeconfig, and there is none; set --kubeconfig")
        return Connection(connect("", qps=QPS, burst=BURST), "this cluster")
    config = from_file(Path(path).expanduser(), options.context)
    client = connect_with(config, where=f"kubeconfig {path}", qps=QPS, burst=BURST)
    return Connection(client, config.context_name)


def _path(given: str) -> str:
    """The kubeconfig's path as kubectl finds it; empty: there is none."""
    if given:
        return given
    named = [each for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    if len(named) > 1:
        raise ConfigError(
            "KUBECONFIG names several files, and they are not merged: set --kubeconfig"
        )
    usual = Path("~/.kube/config").expanduser()
    return named[0] if named else str(usual) if usual.exists() else ""


def _explained(error: BaseException) -> str:
    status = status_of(error)
    if status is not None and status[0] == UNAUTHORIZED:
        return f"{describe(error)}: the credentials of the kubeconfig are expired, or not known"
    return describe(error)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
