"""Collects the evidence of one run of `konnectivity doctor`: from its options to a `Case`.

What each mode asks for: nothing but facts by default; with `--probe` dials through a frontend too;
with `--pre` and `--node` the way from here to the servers, and the cluster only if it is named.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from konnectivity.diagnose.attempt import Attempt
from konnectivity.diagnose.case import Case, Egress, TargetDial
from konnectivity.diagnose.check import Source
from konnectivity.diagnose.checks.egress_selector import doors_of
from konnectivity.diagnose.doctor_options import DoctorOptions
from konnectivity.diagnose.facts import Facts, Problem
from konnectivity.diagnose.gather import gather
from konnectivity.diagnose.probes.clock import PORT as NTP_PORT
from konnectivity.diagnose.probes.clock import clock_skew
from konnectivity.diagnose.probes.end_to_end import Target, dial_all, targets_of
from konnectivity.diagnose.probes.hop import HopOptions, try_server
from konnectivity.diagnose.probes.token import inspect_token
from konnectivity.diagnose.sources import ClusterSource, ServerSource, Sources, from_options
from konnectivity.diagnose.surroundings import Surroundings, survey
from konnectivity.errors import ConfigError, LinkError
from konnectivity.kube.client import connect
from konnectivity.lifecycle.reconciling.plan import Action, Reason, plan
from konnectivity.lifecycle.reconciling.preview import observe_once
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification import spec_check, spec_file
from konnectivity.lifecycle.specification.spec import AGENT_PORT, AgentSpec
from konnectivity.net.address import AddressError, split_host_port

if TYPE_CHECKING:
    from lightkube import AsyncClient

LOCAL_AGENT: Final = "http://127.0.0.1:8094"
"""Where the agent of this node tells its status."""


async def collect(options: DoctorOptions, environ: Mapping[str, str]) -> Case:
    """All evidence that the options ask for.

    Raises:
        ConfigError: a file that they name is wrong.
    """
    spec = await asyncio.to_thread(_spec, options.spec)
    sources = await asyncio.to_thread(_sources, options, environ)
    facts, probes, (clocks, clock_problems), egress, (around, drift) = await asyncio.gather(
        gather(sources) if sources.servers or sources.cluster else _no_facts(),
        _probes(options, spec, environ),
        _clocks(options),
        _egress(options.egress_config),
        _cluster(sources.cluster, spec, options),
    )
    dials = await _dials(options, around)
    return Case(
        facts=replace(facts, problems=(*facts.problems, *clock_problems)),
        probes=tuple(probes),
        dials=tuple(dials),
        surroundings=around,
        spec=spec,
        drift=drift,
        egress=egress,
        clocks=clocks,
        settling=options.settling,
        asked=_asked(options, sources),
    )


def _sources(options: DoctorOptions, environ: Mapping[str, str]) -> Sources:
    sources = from_options(options, environ)
    if not options.is_local:
        return replace(sources, nodes=False)
    servers: tuple[ServerSource, ...] = sources.servers if options.server else ()
    if options.node and not servers:
        servers = (replace(sources.servers[0], url=LOCAL_AGENT, guessed=True),)
    cluster = sources.cluster if options.kubeconfig else None
    return replace(sources, servers=servers, cluster=cluster)


def _asked(options: DoctorOptions, sources: Sources) -> frozenset[Source]:
    asked = {
        Source.SERVERS: any(not each.guessed for each in sources.servers),
        Source.CLUSTER: sources.cluster is not None,
        Source.DIALS: options.probe,
        Source.ATTEMPTS: options.is_local,
        Source.CLOCKS: bool(options.ntp_server),
    }
    return frozenset(source for source, meant in asked.items() if meant)


async def _no_facts() -> Facts:
    return Facts(taken_at=time.time())


# From here to the servers


async def _probes(
    options: DoctorOptions, spec: AgentSpec | None, environ: Mapping[str, str]
) -> list[Attempt]:
    if not options.is_local:
        return []
    hop = HopOptions(
        ca=options.ca_cert,
        cert=options.agent_cert,
        key=options.agent_key,
        timeout=options.timeout,
        origin=options.origin or "here",
    )
    targets = [split_target(each) for each in options.target]
    if not targets and spec is not None:
        targets = [(spec.server_host, spec.server_port)]
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(try_server(host, port, hop, environ)) for host, port in targets]
    found = [attempt for each in tries for attempt in each.result()]
    if options.token_file:
        audience = spec.audience if spec else options.audience
        token = await asyncio.to_thread(inspect_token, options.token_file, audience=audience)
        found.append(token)
    return found


def split_target(text: str) -> tuple[str, int]:
    """Host and port of a server for agents; the port may be left out.

    Raises:
        ConfigError: it is neither.
    """
    try:
        host, port = split_host_port(text if _has_port(text) else f"{text}:{AGENT_PORT}")
    except AddressError as error:
        raise ConfigError(f"target {text!r} is not host:port: {error}") from error
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise ConfigError(f"target {text!r} is not host:port")
    return host, int(port)


def _has_port(text: str) -> bool:
    return "]:" in text or text.count(":") == 1


async def _clocks(options: DoctorOptions) -> tuple[dict[str, float], list[Problem]]:
    if not options.ntp_server:
        return {}, []
    host, colon, port = options.ntp_server.rpartition(":")
    if not colon or not port.isdigit():
        host, port = options.ntp_server, str(NTP_PORT)
    try:
        skew = await clock_skew(host.strip("[]"), int(port), limit=options.timeout)
    except LinkError as error:
        return {}, [Problem("clocks", "the time", "silent", str(error))]
    return {f"time server {options.ntp_server}": skew}, []


# Files


def _spec(path: str) -> AgentSpec | None:
    if not path:
        return None
    values, wrong = spec_file.read(path)
    if not wrong:
        spec = AgentSpec(**values)
        wrong = spec_check.problems(spec)
    if wrong:
        raise ConfigError(f"{path}: {'; '.join(wrong)}")
    return spec


async def _egress(path: str) -> Egress | None:
    """The file, and whether the sockets and ports that it names are listened on."""
    if not path:
        return None
    content, error = await asyncio.to_thread(_read_yaml, path)
    doors = doors_of(content)
    answers = await asyncio.gather(*map(_knock, doors))
    return Egress(
        path=path, content=content, error=error, doors=dict(zip(doors, answers, strict=True))
    )


def _read_yaml(path: str) -> tuple[Any, str]:
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(Path(path).read_bytes()), ""
    except OSError as error:
        return None, (error.strerror or str(error)).lower()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return None, "it is not YAML"


async def _knock(door: str) -> str:
    """Why nothing answers there; empty if something does."""
    try:
        async with asyncio.timeout(5.0):
            if door.startswith("unix:"):
                _, writer = await asyncio.open_unix_connection(door.removeprefix("unix:"))
            else:
                host, port = split_host_port(door)
                _, writer = await asyncio.open_connection(host, int(port))
            writer.transport.abort()
    except TimeoutError:
        return "no answer within 5 s"
    except (OSError, ValueError) as error:
        return (
            getattr(error, "strerror", None) or os.strerror(getattr(error, "errno", 0) or 22)
        ).lower()
    return ""


# The cluster


async def _cluster(
    source: ClusterSource | None, spec: AgentSpec | None, options: DoctorOptions
) -> tuple[Surroundings | None, tuple[Action, ...] | None]:
    """What is around the agents, and how they differ from the specification."""
    if source is None:
        return None, None
    try:
        client = await asyncio.to_thread(
            connect, source.kubeconfig, qps=-1.0, timeout=options.timeout
        )
    except ConfigError:
        return None, None  # `gather` says so
    user = spec.server_user if spec else AgentSpec().server_user
    try:
        around = await survey(client, namespace=source.namespace, server_user=user)
        return around, await _drift(client, spec, limit=options.timeout) if spec else None
    finally:
        await client.close()


async def _drift(
    client: AsyncClient, spec: AgentSpec, *, limit: float
) -> tuple[Action, ...] | None:
    """What the manager would do; None if not all could be read."""
    desired = render(spec)
    observed, unknown = await observe_once(client, desired, limit=limit)
    if unknown:
        return None
    actions = plan(desired, observed, overrides=spec.overrides)
    # Objects that others applied, with all that is wanted, are as specified.
    return tuple(each for each in actions if each.changes or each.reason is not Reason.ADOPT)


async def _dials(options: DoctorOptions, around: Surroundings | None) -> Sequence[TargetDial]:
    if not options.probe:
        return ()
    targets = targets_of(around) if around is not None else []
    targets += [Target(kind="service", name=each, address=each, tls=False) for each in options.dial]
    return await dial_all(targets, frontend=options.frontend, mode=options.frontend_mode)
