"""Of several managers one writes: who leads, who waits, who follows a leader that is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.lifecycle.conftest import Connect
from tests.peers.kube_api import Fault, KubeApi

from konnectivity.kube.leases import parse_time
from konnectivity.lifecycle.managing.election import Election, ElectionTimes

LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/konnectivity-manager"
QUICK = ElectionTimes(duration=1.0, deadline=0.5, renewal=0.1, poll=0.05)


def candidate(client_of: Connect, identity: str, changes: list[str] | None = None) -> Election:
    return Election(
        client_of(),
        namespace="kube-system",
        identity=identity,
        changed=lambda: changes.append(identity) if changes is not None else None,
        times=QUICK,
    )


async def until(reached: Callable[[], Any], *, within: float = 5.0) -> float:
    started = time.monotonic()
    async with asyncio.timeout(within):
        while not reached():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.005)
    return time.monotonic() - started


def spec(api: KubeApi) -> dict[str, Any]:
    found: dict[str, Any] = (api.get(LEASE) or {})["spec"]
    return found


async def test_the_first_leads_and_the_second_stands_by(api: KubeApi, client_of: Connect) -> None:
    changes: list[str] = []
    async with candidate(client_of, "a", changes) as first:
        await until(lambda: first.leading)
        async with candidate(client_of, "b", changes) as second:
            await until(lambda: second.leader == "a")
            renewed = spec(api)["renewTime"]
            await until(lambda: spec(api)["renewTime"] != renewed)
            assert (first.leading, second.leading) == (True, False)
    assert changes == ["a"]
    assert spec(api)["leaseDurationSeconds"] == 1
    assert parse_time(spec(api)["acquireTime"])


async def test_who_resigns_is_followed_at_once(api: KubeApi, client_of: Connect) -> None:
    second = candidate(client_of, "b")
    async with candidate(client_of, "a") as first:
        await until(lambda: first.leading)
        await second.__aenter__()
        await until(lambda: second.leader == "a")
    assert not first.leading
    took = await until(lambda: second.leading)
    await second.__aexit__()
    assert took < 0.5
    assert spec(api)["leaseTransitions"] == 3  # to nobody, to b, to nobody


async def test_a_dead_leader_is_followed_when_its_lease_has_not_moved_for_its_duration(
    api: KubeApi, client_of: Connect
) -> None:
    dead = {
        "holderIdentity": "dead",
        "leaseDurationSeconds": 1,
        "renewTime": "2999-01-01T00:00:00Z",
    }
    api.put(LEASE, {"metadata": {}, "spec": dead})
    async with candidate(client_of, "a") as election:
        took = await until(lambda: election.leading)
    assert took > 0.9


async def test_a_lease_that_moves_is_never_taken_whatever_its_time_says(
    api: KubeApi, client_of: Connect
) -> None:
    async with candidate(client_of, "a") as election:
        for second in range(15):
            alive = {"holderIdentity": "b", "leaseDurationSeconds": 1}
            alive["renewTime"] = f"1999-01-01T00:00:{second:02d}Z"
            api.put(LEASE, {"metadata": {}, "spec": alive})
            await asyncio.sleep(0.1)
            assert not election.leading


async def test_a_leader_that_cannot_renew_stops_before_others_may_begin(
    api: KubeApi, client_of: Connect
) -> None:
    async with candidate(client_of, "a") as election:
        await until(lambda: election.leading)
        api.faults.append(Fault("PUT", "/leases/", status=500))
        api.faults.append(Fault("GET", "/leases/", status=500))
        took = await until(lambda: not election.leading)
        assert took <= QUICK.deadline + 0.2 < QUICK.duration
        api.faults.clear()
        await until(lambda: election.leading)


async def test_an_api_server_that_hangs_costs_the_lead(api: KubeApi, client_of: Connect) -> None:
    async with candidate(client_of, "a") as election:
        await until(lambda: election.leading)
        api.faults.append(Fault("", "/leases/", hang=True))
        await until(lambda: not election.leading, within=1.0)
        api.faults.clear()
        await until(lambda: election.leading)


async def test_a_leader_whose_lease_was_taken_yields(api: KubeApi, client_of: Connect) -> None:
    async with candidate(client_of, "a") as election:
        await until(lambda: election.leading)
        taken = {"holderIdentity": "b", "leaseDurationSeconds": 1}
        api.put(LEASE, {"metadata": {}, "spec": taken})
        await until(lambda: not election.leading and election.leader == "b")


async def test_of_many_only_one_leads_at_any_time(api: KubeApi, client_of: Connect) -> None:
    elections = [candidate(client_of, name) for name in "abcd"]
    for each in elections:
        await each.__aenter__()
    try:
        for _ in range(3):
            await until(lambda: any(each.leading for each in elections))
            ends = time.monotonic() + 0.2
            while time.monotonic() < ends:
                assert sum(each.leading for each in elections) <= 1
                await asyncio.sleep(0.01)
            leader = next(each for each in elections if each.leading)
            await leader.__aexit__()
            elections.remove(leader)
    finally:
        for each in elections:
            await each.__aexit__()


async def test_a_missing_right_is_named(
    api: KubeApi, client_of: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    api.faults.append(Fault("", "/leases", status=403, reason="Forbidden"))
    async with candidate(client_of, "a") as election:
        await until(lambda: caplog.records)
        assert not election.leading
    (record,) = [each for each in caplog.records if "election" in each.getMessage()]
    assert "allow get, create, update on leases" in str(vars(record))
