"""What our agent writes of itself to the Kubernetes API, with a small API server to take it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Log, StartAgent, StartServer, until
from tests.peers.kube_api import Fault, KubeApi

from konnectivity.agent.heartbeat import open_writer, sweep
from konnectivity.agent.vitals import Vitals
from konnectivity.kube import heartbeat
from konnectivity.kube.client import connect
from konnectivity.kube.collection import Collection
from konnectivity.kube.heartbeat import Heartbeat
from konnectivity.kube.leases import format_time

LEASES = "/apis/coordination.k8s.io/v1/namespaces/konnectivity-heartbeats/leases"
OWN = f"{LEASES}/agent-1"


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as api:
        yield api


@pytest.fixture
def beating(api: KubeApi, folder: Path) -> dict[str, Any]:
    """Options of an agent that writes heartbeats as often as it may."""
    return {"heartbeat_interval": 1.0, "kubeconfig": str(api.kubeconfig(folder))}


async def told(api: KubeApi, enough: Callable[[Heartbeat], object]) -> Heartbeat:
    """The first heartbeat that says `enough`."""
    found: list[Heartbeat] = []

    def look() -> bool:
        lease = api.get(OWN)
        found[:] = [heartbeat.read(lease)] if lease else []
        return bool(found and enough(found[0]))

    await until(look)
    return found[0]


async def test_it_tells_which_servers_the_agent_is_connected_to(
    start_server: StartServer, start_agent: StartAgent, api: KubeApi, beating: dict[str, Any]
) -> None:
    await start_server()
    await start_agent(**beating)
    beat = await told(api, lambda beat: beat.servers and beat.servers[0].round_trip)
    assert (beat.agent, beat.state, beat.servers_wanted) == ("agent-1", "running", 1)
    assert [each.id for each in beat.servers] == ["server-1"]
    assert {each.name for each in beat.certificates} == {"agent-cert", "ca-cert"}
    lease = api.get(OWN) or {}
    assert lease["metadata"]["labels"] == {"konnectivity/heartbeat": "agent"}
    assert lease["spec"]["leaseDurationSeconds"] == 3


async def test_it_tells_at_which_stage_attempts_fail(
    start_agent: StartAgent, api: KubeApi, beating: dict[str, Any]
) -> None:
    agent = await start_agent(**beating)
    beat = await told(api, lambda beat: beat.failures and beat.failures[0].times > 1)
    (failure,) = beat.failures
    assert failure.target == f"127.0.0.1:{agent.options.proxy_server_port}"
    assert failure.stage == "tcp"
    assert "refused" in failure.error
    assert beat.connection_failures["tcp"] >= failure.times


async def test_a_failure_is_forgotten_once_the_server_is_there(
    start_server: StartServer, start_agent: StartAgent, api: KubeApi, beating: dict[str, Any]
) -> None:
    await start_agent(**beating)
    await told(api, lambda beat: beat.failures)
    await start_server()
    beat = await told(api, lambda beat: beat.servers)
    assert not beat.failures
    assert beat.connection_failures["tcp"] > 0


async def test_nothing_but_its_own_lease_is_asked_for(
    start_server: StartServer, start_agent: StartAgent, api: KubeApi, beating: dict[str, Any]
) -> None:
    await start_server()
    agent = await start_agent(**beating)
    await told(api, lambda beat: beat.servers)
    await agent.stop()
    assert {(each.method, each.path) for each in api.requests} == {("PATCH", OWN), ("DELETE", OWN)}
    assert all(each.query["fieldManager"] == "konnectivity-agent" for each in api.asked("PATCH"))


async def test_an_agent_that_leaves_takes_its_heartbeat_away(
    start_agent: StartAgent, api: KubeApi, beating: dict[str, Any]
) -> None:
    agent = await start_agent(**beating)
    await until(lambda: api.get(OWN))
    await agent.stop()
    assert api.get(OWN) is None


async def test_an_api_that_is_away_harms_nothing_and_is_said_once(
    start_server: StartServer,
    start_agent: StartAgent,
    api: KubeApi,
    beating: dict[str, Any],
    log: Log,
) -> None:
    await start_server()
    api.faults.append(Fault("PATCH", "/leases/", status=403, message="not allowed"))
    agent = await start_agent(**beating)
    await log.wait_for("Cannot write the heartbeat", "not allowed", "create, patch")
    await until(lambda: agent.connections.links)
    await until(lambda: len(api.asked("PATCH")) >= 3)
    api.faults.clear()
    await told(api, lambda beat: beat.servers)
    assert sum("Cannot write the heartbeat" in line for line in log.lines) == 1


async def test_an_api_that_never_answers_does_not_hold_the_agent_up(
    start_agent: StartAgent, api: KubeApi, beating: dict[str, Any]
) -> None:
    api.faults.append(Fault(hang=True))
    agent = await start_agent(**beating)
    await until(lambda: api.asked("PATCH"))
    async with asyncio.timeout(10):
        await agent.stop()


async def test_without_an_interval_nothing_is_asked(
    start_server: StartServer, start_agent: StartAgent, api: KubeApi, beating: dict[str, Any]
) -> None:
    await start_server()
    agent = await start_agent(**beating | {"heartbeat_interval": 0.0})
    await until(lambda: agent.connections.links)
    assert not api.requests


async def test_abandoned_heartbeats_are_swept_and_fresh_ones_are_not(
    api: KubeApi, beating: dict[str, Any]
) -> None:
    for name, when in (("gone", 1.0), ("here", 4e9)):
        api.put(
            f"{LEASES}/{name}",
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "labels": {heartbeat.LABEL: "agent"}},
                "spec": {"renewTime": format_time(when)},
            },
        )
    client = await asyncio.to_thread(connect, beating["kubeconfig"])
    assert await sweep(Collection(client, LEASES.removeprefix("/"))) == 2
    await client.close()
    assert api.get(f"{LEASES}/gone") is None
    assert api.get(f"{LEASES}/here")


@pytest.mark.parametrize("namespace", ["konnectivity-heartbeats", "kube-system"])
async def test_the_pod_owns_a_heartbeat_in_its_own_namespace_alone(
    namespace: str,
    start_agent: StartAgent,
    api: KubeApi,
    beating: dict[str, Any],
) -> None:
    pod = {"POD_NAME": "pod-1", "POD_UID": "u-1", "POD_NAMESPACE": namespace, "NODE_NAME": "node-1"}
    agent = await start_agent()
    vitals = Vitals(
        agent_id="agent-1",
        connections=agent.connections,
        counters=agent.counters,
        certificates=lambda: agent.certificates,
        environ=pod,
        started_at=1.0,
    )
    options = dataclasses.replace(agent.options, **beating)
    async with await open_writer(options, vitals, environ=pod):
        beat = await told(api, lambda beat: True)
        lease = api.get(OWN) or {}
    assert (beat.pod, beat.node, beat.namespace) == ("pod-1", "node-1", namespace)
    owners = lease["metadata"].get("ownerReferences", [])
    assert [each["uid"] for each in owners] == (["u-1"] if "heartbeats" in namespace else [])


def test_the_document_is_bounded_whatever_the_agent_is_called() -> None:
    failures = tuple(
        heartbeat.Failure("t" * 500, "tcp", "\x1b[31m" + "e" * 5000, heartbeat.Time(1.0), 1)
        for _ in range(50)
    )
    beat = Heartbeat(
        agent="a" * 100_000,
        version="1",
        started_at=heartbeat.Time(1.0),
        updated_at=heartbeat.Time(2.0),
        state="running",
        servers_wanted=1,
        failures=failures,
    )
    text = heartbeat.encode(beat)
    assert len(text) <= heartbeat.LARGEST
    assert "\\u001b" not in text
    read = heartbeat.decode(text)
    assert 0 < len(read.failures) <= heartbeat.MOST_FAILURES
    assert len(json.dumps(heartbeat.lease_of(beat, name="x", interval=60.0))) < 10_000


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema":"v2"}', '{"schema":"v1"}', "[" * 5000, "x" * 9000,
     '{"schema":"v1","agent":7}'],
)  # fmt: skip
def test_what_is_no_heartbeat_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r".{10}"):
        heartbeat.decode(text)


@pytest.mark.parametrize("agent_id", ["Über", "a/b", "", "x" * 300, "-a"])
def test_an_id_that_is_no_name_of_an_object_makes_one(agent_id: str) -> None:
    name = heartbeat.lease_name(agent_id)
    assert name.startswith("agent-")
    assert len(name) == 38
