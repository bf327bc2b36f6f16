"""Collects what an explanation needs, makes the dials, and puts the chains together."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from konnectivity.diagnose.case import Case
from konnectivity.diagnose.cluster import open_cluster
from konnectivity.diagnose.collect import collect
from konnectivity.diagnose.doctor_options import DoctorOptions
from konnectivity.diagnose.explain.callee import (
    ADDRESS_TYPES,
    Callee,
    Manner,
    callees,
    namespaces,
)
from konnectivity.diagnose.explain.chain import Chain, Link, State, Verdict
from konnectivity.diagnose.explain.policies import POLICIES
from konnectivity.diagnose.explain.service import Pods
from konnectivity.diagnose.explain.way import chain
from konnectivity.diagnose.probes.end_to_end import Target, dial_all
from konnectivity.diagnose.sources import ClusterSource, SourceOptions, Sources
from konnectivity.errors import ConfigError
from konnectivity.flag import flag
from konnectivity.gotext import one_line

POLICY: Final = "networking.k8s.io/v1"


@dataclass(frozen=True)
class ExplainOptions(SourceOptions):
    """All flags of the command."""

    flags_title: ClassVar[str] = "Flags"

    frontend: str = flag("", "Unix socket of a server's frontend here, for a dial; empty: none.")
    frontend_mode: str = flag("grpc", "What it speaks: grpc or http-connect.")
    egress_config: str = flag("", "kube-apiserver's file with its egress selector.")
    kubelet_preferred_address_types: tuple[str, ...] = flag(
        ADDRESS_TYPES, "As kube-apiserver has it: which address of a node is dialled."
    )
    enable_aggregator_routing: bool = flag(
        False, "As kube-apiserver has it: endpoints are dialled, not the addresses of services."
    )
    output: str = flag("table", "Format: table or json.", short="o")


async def explain(
    kind: str,
    name: str,
    options: ExplainOptions,
    sources: Sources,
    environ: Mapping[str, str],
) -> list[Chain]:
    """A chain for each webhook, or for the one API service, pod or node."""
    common = {each.name: getattr(options, each.name) for each in dataclasses.fields(SourceOptions)}
    case = await collect(DoctorOptions(**common, egress_config=options.egress_config), environ)
    try:
        return await _chains(case, kind, name, options, sources)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Objects of others may have any shape.
        text = f"what was read makes no sense: {one_line(repr(error))}"
        return [Chain(f"{kind} {name}", (Link("configuration", State.UNKNOWN, text),))]


async def _chains(
    case: Case, kind: str, name: str, options: ExplainOptions, sources: Sources
) -> list[Chain]:
    spaces = namespaces(case, kind, name)
    pods = await _pods(sources.cluster, spaces, limit=options.timeout)
    manner = Manner(
        address_types=options.kubelet_preferred_address_types,
        aggregator_routing=options.enable_aggregator_routing,
    )
    found = callees(case, kind, name, pods, manner)
    return [await _chain(case, each, pods, options) for each in found]


async def _chain(case: Case, callee: Callee, pods: Pods, options: ExplainOptions) -> Chain:
    """With a dial, unless the chain breaks before it comes to one."""
    untried = chain(case, callee, pods, ())
    breaks = untried.verdict is Verdict.BROKEN and untried.links[-1].title not in POLICIES
    if breaks or not options.frontend or not callee.addresses:
        return untried
    targets = [
        Target(
            kind=callee.kind,
            name=callee.title,
            address=each,
            tls=callee.tls,
            ca=callee.ca,
            server_name=callee.server_name,
        )
        for each in callee.addresses
    ]
    dials = await dial_all(targets, frontend=options.frontend, mode=options.frontend_mode)
    return chain(case, callee, pods, dials)


async def _pods(source: ClusterSource | None, spaces: set[str], *, limit: float) -> Pods:
    """The pods of these namespaces, and their network policies."""
    if source is None or not spaces:
        return Pods()
    names = sorted(spaces)
    try:
        async with open_cluster(source, limit=limit) as reader:
            lists, policies = await asyncio.gather(
                asyncio.gather(*(reader.list("v1", "Pod", each) for each in names)),
                asyncio.gather(*(reader.list(POLICY, "NetworkPolicy", each) for each in names)),
            )
            unread = "; ".join(dict.fromkeys(map(str, reader.problems)))
    except ConfigError as error:
        return Pods(unread=str(error))
    read = {space: items for space, items in zip(names, lists, strict=True) if items is not None}
    by_name = {
        f"{space}/{item['metadata']['name']}": item for space in read for item in read[space]
    }
    found = {space: each for space, each in zip(names, policies, strict=True) if each is not None}
    return Pods(by_name, frozenset(read), unread, found)
