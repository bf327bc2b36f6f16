"""The specification that a cluster was installed by, kept at the workload, for upgrades.

An annotation holds what differs from the defaults, another one the specification before, for a
rollback. Their field manager is one of its own, so a standing manager leaves them alone. What may
be secret is not copied: values of the environment are read back from the workload itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from konnectivity.errors import ConfigError
from konnectivity.flag import STRINGS, flags_of
from konnectivity.kube.collection import Collection, Object
from konnectivity.kube.resources import collection_path
from konnectivity.lifecycle.reconciling.plan import Key
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification.spec import CONTAINER, AgentSpec
from konnectivity.lifecycle.specification.spec_check import problems

if TYPE_CHECKING:
    from lightkube import AsyncClient

SPECIFICATION: Final = "konnectivity/specification"
FORMER: Final = "konnectivity/former-specification"
WRITER: Final = "konnectivity-cli"
"""Field manager of what commands write beside the objects themselves."""
LONGEST: Final = 100_000
"""Bytes of one specification; all annotations of an object may have 256 KiB."""

_FLAGS: Final = {each.name: each for each in flags_of(AgentSpec)}


def encode(spec: AgentSpec) -> str:
    """What differs from the defaults as JSON, by the names of the flags; no environment."""
    values = {
        name: value
        for name, each in _FLAGS.items()
        if (value := getattr(spec, each.field)) != each.default and each.field != "environment"
    }
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def decode(text: str, workload: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Values by field, with the environment of `workload`; names of other releases are left out.

    Raises:
        ConfigError: somebody else has written the annotation, which `where` names.
    """
    wrong = f"{where} is not as it was written; give the whole specification with --spec"
    try:
        read = json.loads(text)
    except ValueError as error:
        raise ConfigError(wrong) from error
    if not isinstance(read, dict):
        raise ConfigError(wrong)
    values: dict[str, Any] = {}
    for name, value in read.items():
        if (known := _FLAGS.get(name)) is None:
            continue
        if known.kind is STRINGS and isinstance(value, list):
            value = tuple(value)
        if not _fits(value, known.default):
            raise ConfigError(f"{wrong} ({name})")
        values[known.field] = value
    return {**values, "environment": _environment(workload)}


def stored(item: Mapping[str, Any], *, former: bool = False) -> dict[str, Any] | None:
    """Values by field that a workload was installed by, or before that; None: none are kept.

    Raises:
        ConfigError: they cannot be read.
    """
    text = kept(item, former=former)
    if text is None:
        return None
    name, owner = FORMER if former else SPECIFICATION, item["metadata"].get("name")
    return decode(text, item, where=f"annotation {name} of {owner}")


def kept(item: Mapping[str, Any], *, former: bool = False) -> str | None:
    """The text of the annotation, as it is."""
    text = (item["metadata"].get("annotations") or {}).get(FORMER if former else SPECIFICATION)
    return None if text is None else str(text)


def former_objects(workloads: Iterable[Mapping[str, Any]]) -> list[Object]:
    """What the specifications that are kept at `workloads` amounted to; nothing if unreadable."""
    found: list[Object] = []
    for item in workloads:
        with suppress(ConfigError):
            values = stored(item)
            spec = AgentSpec(**values) if values else None
            found += render(spec) if spec and not problems(spec) else []
    return found


async def keep(client: AsyncClient, key: Key, spec: AgentSpec, *, before: str | None) -> bool:
    """Write `spec` to the workload, and what was kept `before`; whether it is kept there now."""
    text = encode(spec)
    if len(text.encode()) > LONGEST:
        return False
    if before == text:
        return True
    former = {FORMER: before} if before is not None else {}
    meta = {"name": key.name, "namespace": key.namespace}
    item: Object = {
        "apiVersion": key.api_version,
        "kind": key.kind,
        "metadata": {**meta, "annotations": {SPECIFICATION: text, **former}},
    }
    path = collection_path(key.api_version, key.kind, key.namespace)
    await Collection(client, path).apply(item, manager=WRITER, force=True)
    return True


def _environment(workload: Mapping[str, Any]) -> tuple[str, ...]:
    pod = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    agents = [each for each in pod.get("containers") or [] if each.get("name") == CONTAINER]
    variables: Iterable[Mapping[str, Any]] = agents[0].get("env") or [] if agents else []
    return tuple(
        f"{each['name']}={each.get('value') or ''}" for each in variables if "valueFrom" not in each
    )


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is type(default)
