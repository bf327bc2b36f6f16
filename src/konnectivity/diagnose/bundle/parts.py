"""The parts of a bundle, in the order in which they go in: what matters most comes first.

A row says what it is and who collects it. All are collected at once; one that fails is a line in
the index, and the others are there all the same.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from konnectivity.diagnose.bundle import cluster, machine, processes
from konnectivity.diagnose.bundle.archive import Archive, File, Found, Miss, Part
from konnectivity.diagnose.bundle.processes import Processes
from konnectivity.diagnose.catalogue import CHECKS
from konnectivity.diagnose.collect import collect as collect_case
from konnectivity.diagnose.doctor_options import DoctorOptions
from konnectivity.diagnose.engine import run
from konnectivity.diagnose.facts import Facts
from konnectivity.diagnose.gather import gather
from konnectivity.diagnose.report_json import document
from konnectivity.diagnose.sources import SourceOptions, Sources
from konnectivity.diagnose.view import look
from konnectivity.errors import KonnectivityError
from konnectivity.gotext import one_line
from konnectivity.observe.status_json import to_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What parts are collected from. `interval` is the time between two looks, in seconds."""

    options: SourceOptions
    sources: Sources
    facts: Facts
    processes: Processes
    environ: Mapping[str, str]
    interval: float
    masks_addresses: bool


Collect = Callable[[Site], Awaitable[list[Found]]]


async def _status(site: Site) -> list[Found]:
    view = File("status.json", to_plain(look(site.facts)))
    return [view, *await site.processes.ask(processes.status)]


async def _doctor(site: Site) -> list[Found]:
    fields = dataclasses.fields(SourceOptions)
    same = {each.name: getattr(site.options, each.name) for each in fields}
    case = await collect_case(DoctorOptions(**same), site.environ)
    return [File("doctor.json", document(list(run(CHECKS, case)), case))]


async def _versions(site: Site) -> list[Found]:
    return machine.versions(site.facts)


async def _environment(site: Site) -> list[Found]:
    return await asyncio.to_thread(machine.environment, site.environ)


async def _certificates(site: Site) -> list[Found]:
    return await machine.certificates(site.facts, public_parts=not site.masks_addresses)


async def _objects(site: Site) -> list[Found]:
    return await cluster.objects(site.sources.cluster, limit=site.sources.timeout)


async def _policies(site: Site) -> list[Found]:
    return await cluster.policies(site.sources.cluster, limit=site.sources.timeout)


async def _events(site: Site) -> list[Found]:
    own = await site.processes.ask(processes.events)
    return [cluster.kubernetes_events(site.facts), *own]


async def _metrics(site: Site) -> list[Found]:
    return await site.processes.ask(processes.metrics(site.interval))


def _asking(question: processes.Ask) -> Collect:
    return lambda site: site.processes.ask(question)


@dataclass(frozen=True, slots=True)
class Row:
    """One part: what `--without` calls it, what it is, and who collects it."""

    name: str
    about: str
    collect: Collect


PARTS: Final = (
    Row("status", "what konnectivity status says, and each process's own status", _status),
    Row("doctor", "what konnectivity doctor finds", _doctor),
    Row("versions", "versions of everything", _versions),
    Row("configuration", "flags in force", _asking(processes.configuration)),
    Row("events", "what happened lately, to servers, agents and their objects", _events),
    Row("logs", "the last log records of each process", _asking(processes.logs)),
    Row("objects", "the agents' objects, leases and heartbeats", _objects),
    Row("policies", "network policies, and namespaces with their labels", _policies),
    Row("certificates", "certificates in use; those of files on this machine", _certificates),
    Row("environment", "proxies and resolver of this machine", _environment),
    Row("metrics", "two looks at the metrics", _metrics),
    Row("dials", "the last dials", _asking(processes.dials)),
    Row("stacks", "what each process is doing, where profiling is on", _asking(processes.stacks)),
    Row("tunnels", "tunnels and their destinations", _asking(processes.tunnels)),
)
NAMES: Final = tuple(each.name for each in PARTS)


async def fill(
    archive: Archive,
    options: SourceOptions,
    sources: Sources,
    *,
    environ: Mapping[str, str],
    interval: float,
    without: frozenset[str],
    masks_addresses: bool,
    tell: Callable[[Part], None],
) -> Facts:
    """Collect all parts but those of `without`; `tell` hears of each as it goes in."""
    facts = await gather(sources)
    site = Site(
        options=options,
        sources=sources,
        facts=facts,
        processes=Processes(sources),
        environ=environ,
        interval=interval,
        masks_addresses=masks_addresses,
    )
    async with asyncio.TaskGroup() as group:
        tasks = {
            row.name: group.create_task(_collected(row, site))
            for row in PARTS
            if row.name not in without
        }
        for row in PARTS:
            part = Part(row.name, row.about, left_out=row.name in without)
            found: list[Found] = []
            if row.name in tasks:
                found, part.seconds = await tasks[row.name]
            await asyncio.to_thread(archive.add, part, found)
            tell(part)
    return facts


async def _collected(row: Row, site: Site) -> tuple[list[Found], float]:
    """What was found, and after how many seconds."""
    started = time.monotonic()
    found: list[Found]
    try:
        found = await row.collect(site)
    except KonnectivityError as error:
        found = [Miss(row.name, str(error))]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Documents and objects of others may have any shape.
        found = [Miss(row.name, f"what was read makes no sense: {one_line(repr(error))}")]
    return found, time.monotonic() - started


def any_answer(facts: Facts) -> bool:
    """Whether something beside this machine told anything."""
    cluster = facts.cluster
    told = cluster is not None and cluster.knows("pods")
    return told or bool(facts.agents) or any(each.answers for each in facts.servers)
