"""The server's lease, as a small API server sees it: requests, odd leases, trouble, the stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Log, log, until
from tests.peers.kube_api import Fault, KubeApi, Object

from konnectivity.kube import leases
from konnectivity.kube.client import connect
from konnectivity.server.counters import ServerCounters
from konnectivity.server.lease_controller import LeaseController, LeaseTimes
from konnectivity.server.options import ServerOptions
from konnectivity.wire import announcement

__all__ = ["log"]  # a fixture

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
OWN = f"{LEASES}/konnectivity-proxy-server-s1"
LABELS = {"k8s-app": "konnectivity-server"}
QUICK = LeaseTimes(renewal=0.05, first_wait=0.02, longest_wait=0.05, collection=0.05)


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as api:
        yield api


class Running:
    def __init__(self, controller: LeaseController, counters: ServerCounters) -> None:
        self.controller = controller
        self.counters = counters


@asynccontextmanager
async def running(
    api: KubeApi, folder: Path, *, times: LeaseTimes = QUICK, **options: Any
) -> AsyncIterator[Running]:
    counters = ServerCounters()
    config = str(api.kubeconfig(folder))
    client = await asyncio.to_thread(connect, config, qps=1000, burst=1000)
    flags = ServerOptions(server_id="s1", **options)
    async with LeaseController(client, flags, counters, times=times) as controller:
        controller.start()
        yield Running(controller, counters)


def lease(renewed: float, *, holder: str = "", address: str = "", **labels: str) -> Object:
    item = leases.renewed(
        None,
        server_id=holder or "other",
        labels=labels or LABELS,
        address=address,
        now=time.time() + renewed,
    )
    if not holder:
        del item["spec"]["holderIdentity"]
    return item


def renewals(api: KubeApi) -> list[Any]:
    return api.asked("PUT", OWN)


# The own lease


async def test_the_lease_is_acquired_renewed_and_deleted_as_on_upstreams_wire(
    api: KubeApi, folder: Path, log: Log
) -> None:
    async with running(api, folder, lease_label="b=2, a = 1") as server:
        await until(lambda: len(renewals(api)) >= 2)
        own = api.get(OWN)
        assert own is not None
        assert own["metadata"]["labels"] == {"a": "1", "b": "2"}
        assert set(own["metadata"]) == {
            *("name", "namespace", "labels"),
            *("uid", "resourceVersion", "creationTimestamp"),
        }
        assert own["spec"].keys() == {"holderIdentity", "leaseDurationSeconds", "renewTime"}
        assert (own["spec"]["holderIdentity"], own["spec"]["leaseDurationSeconds"]) == ("s1", 30)
        renewed = leases.parse_time(own["spec"]["renewTime"])
        assert renewed == pytest.approx(time.time(), abs=5)
        await server.controller.leave()
    assert api.get(OWN) is None
    own_requests = [each for each in api.requests if "labelSelector" not in each.query]
    assert [(each.method, each.path) for each in own_requests[:3]] == [
        ("GET", OWN),
        ("POST", LEASES),
        ("PUT", OWN),
    ]
    assert api.requests[-1].method == "DELETE"
    assert "preconditions" not in api.requests[-1].body
    assert api.asked("GET", LEASES)[-1].query in ({"labelSelector": "a=1,b=2"}, {})
    assert log.has("Lease acquired")
    assert log.has("Lease deleted")


async def test_a_lease_that_is_there_is_taken_over_with_its_version(
    api: KubeApi, folder: Path
) -> None:
    found = api.put(OWN, lease(-999, holder="s1", old="label"))
    version = found["metadata"]["resourceVersion"]
    async with running(api, folder):
        await until(lambda: renewals(api))
    assert renewals(api)[0].body["metadata"]["resourceVersion"] == version
    own = api.get(OWN)
    assert own is not None
    assert own["metadata"]["labels"] == LABELS
    assert not api.asked("POST", LEASES)


async def test_a_lease_that_somebody_else_wrote_is_renewed_all_the_same(
    api: KubeApi, folder: Path, log: Log
) -> None:
    async with running(api, folder):
        await until(lambda: renewals(api))
        api.put(OWN, lease(-999, holder="s1"))
        seen = len(renewals(api))
        await until(lambda: len(renewals(api)) > seen + 2)
        item = api.get(OWN)
        assert item is not None
        assert leases.judge(item, time.time()).state is leases.State.VALID
    assert not log.has("Cannot")


async def test_a_lease_that_somebody_deleted_is_acquired_anew_and_clocks_are_suspected(
    api: KubeApi, folder: Path, log: Log
) -> None:
    async with running(api, folder):
        await until(lambda: renewals(api))
        api.remove(OWN)
        await until(lambda: api.get(OWN))
    assert log.has("Somebody deleted the lease", "clocks")


async def test_the_address_for_agents_is_an_annotation_only_if_it_is_given(
    api: KubeApi, folder: Path
) -> None:
    async with running(
        api, folder, enable_lease_controller=True, advertise_agent_address="10.0.0.1:8091"
    ):
        await until(lambda: api.get(OWN))
        item = api.get(OWN)
        assert item is not None
        assert item["metadata"]["annotations"] == {leases.ADDRESS: "10.0.0.1:8091"}
    async with running(api, folder):
        await until(lambda: "annotations" not in (api.get(OWN) or {})["metadata"])


# Collection


async def test_leases_are_collected_by_label_time_and_version(api: KubeApi, folder: Path) -> None:
    """Scenario 53."""
    by_acquisition = lease(0)
    by_acquisition["spec"]["acquireTime"] = by_acquisition["spec"].pop("renewTime")
    never = lease(0)
    del never["spec"]["renewTime"]
    kept = {
        "valid-by-renewal": lease(-20),
        "valid-by-acquisition": by_acquisition,
        "expired-of-others": lease(-999, app="other"),
    }
    gone = {"expired": lease(-31), "without-times": never}
    for name, item in (kept | gone).items():
        api.put(f"{LEASES}/{name}", item)
    versions = {
        name: (api.get(f"{LEASES}/{name}") or {})["metadata"]["resourceVersion"] for name in gone
    }
    async with running(api, folder) as server:
        await until(lambda: server.counters.leases_culled == 2)
        await until(lambda: len(api.asked("GET", LEASES)) > 4)
    names = {item["metadata"]["name"] for item in api.items(LEASES)}
    assert names == {*kept, "konnectivity-proxy-server-s1"}
    asked = {
        each.path.rpartition("/")[2]: each.body["preconditions"] for each in api.asked("DELETE")
    }
    assert asked == {name: {"resourceVersion": version} for name, version in versions.items()}
    assert server.counters.lease_deletes.total == {("200", ""): 2}
    assert server.counters.lease_lists.total.keys() == {("200", "")}


async def test_the_own_lease_is_never_collected(api: KubeApi, folder: Path) -> None:
    api.put(OWN, lease(-99, holder="s1"))
    api.put(f"{LEASES}/expired", lease(-99))
    api.faults.append(Fault(method="PUT", status=500))
    async with running(api, folder) as server:
        await until(lambda: len(api.asked("GET", LEASES)) > 6)
        assert server.counters.leases_culled == 1
    assert api.get(OWN)


async def test_w33_odd_leases_are_named_once_never_deleted_and_do_no_harm(
    api: KubeApi, folder: Path, log: Log
) -> None:
    odd: dict[str, Any] = {
        "no-duration": {"renewTime": "2020-01-01T00:00:00Z"},
        "odd-duration": {"renewTime": "2020-01-01T00:00:00Z", "leaseDurationSeconds": "x"},
        "odd-time": {"renewTime": ["now"], "leaseDurationSeconds": 1},
        "odd-spec": "none",
    }
    for name, spec in odd.items():
        api.put(f"{LEASES}/{name}", {"metadata": {"labels": LABELS}, "spec": spec})
    api.put(f"{LEASES}/expired", lease(-99))
    async with running(api, folder) as server:
        await until(lambda: server.counters.leases_culled)
        seen = len(api.asked("GET", LEASES))
        await until(lambda: len(api.asked("GET", LEASES)) > seen + 6)
    assert {item["metadata"]["name"] for item in api.items(LEASES)} >= odd.keys()
    for name in odd:
        assert sum("does not count" in line and name in line for line in log.lines) == 1


@pytest.mark.parametrize(("status", "reason"), [(404, "NotFound"), (409, "Conflict")])
async def test_a_lease_that_was_deleted_or_renewed_meanwhile_is_left_in_peace(
    status: int, reason: str, api: KubeApi, folder: Path, log: Log
) -> None:
    api.put(f"{LEASES}/expired", lease(-99))
    api.faults.append(Fault(method="DELETE", status=status, times=1))
    async with running(api, folder) as server:
        await until(lambda: server.counters.leases_culled)
    assert server.counters.lease_deletes.total[str(status), reason] == 1
    assert server.counters.leases_culled == 1
    assert not log.has("Cannot")


# What agents are told


async def test_agents_are_told_of_all_servers_that_have_a_valid_lease(
    api: KubeApi, folder: Path
) -> None:
    api.put(f"{LEASES}/s2", lease(0, holder="s2", address="10.0.0.2:8091"))
    api.put(f"{LEASES}/s3", lease(0, holder="s3"))
    api.put(f"{LEASES}/s4", lease(-99, holder="s4"))

    def announced(controller: LeaseController) -> dict[str, str]:
        ((key, text),) = controller.announce()
        assert key == announcement.KEY
        return announcement.decode(text)

    async with running(api, folder) as server:
        assert announced(server.controller) == {"s1": ""}
        await until(lambda: len(announced(server.controller)) == 3)
        assert announced(server.controller) == {"s1": "", "s2": "10.0.0.2:8091", "s3": ""}


# Trouble


async def test_an_api_that_is_away_is_tried_again_and_named_once(
    api: KubeApi, folder: Path, log: Log
) -> None:
    await api.stop()
    async with running(api, folder) as server:
        await log.wait_for("Cannot acquire the lease", f"127.0.0.1:{api.port}")
        await asyncio.sleep(0.3)
        await api.start()
        await until(lambda: api.get(OWN))
        await api.stop()
        await log.wait_for("Cannot renew the lease")
        await api.start()
        seen = len(renewals(api))
        await until(lambda: len(renewals(api)) > seen and server.counters.lease_lists.total)
        assert server.counters.lease_lists.total.keys() == {("200", "")}
    for what in ("acquire the lease", "list leases"):
        lines = [line for line in log.lines if f"Cannot {what}" in line]
        assert 1 <= len(lines) <= 3, lines  # refused, reset, away again


async def test_missing_rights_are_one_line_with_the_rule_that_is_missing(
    api: KubeApi, folder: Path, log: Log
) -> None:
    api.faults.append(Fault(status=403, message='User "x" cannot do that'))
    async with running(api, folder) as server:
        line = await log.wait_for("Cannot acquire the lease")
        assert 'User \\"x\\" cannot do that (HTTP 403 Forbidden)' in line
        assert (
            "allow get, list, create, update, delete on leases.coordination.k8s.io "
            "in namespace kube-system" in line
        )
        await until(lambda: len(api.requests) > 10)
        assert server.counters.lease_lists.total.keys() == {("403", "Forbidden")}
        assert sum("Cannot acquire" in line for line in log.lines) == 1
        api.faults.clear()
        await until(lambda: api.get(OWN))
        await log.wait_for("Able to list leases again")


async def test_an_api_that_hangs_does_not_hold_up_the_end(api: KubeApi, folder: Path) -> None:
    api.faults.append(Fault(hang=True))
    started = time.monotonic()
    async with running(api, folder) as server:
        await until(lambda: len(api.requests) >= 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await server.controller.leave()
    assert time.monotonic() - started < 5


async def test_a_lease_that_cannot_be_deleted_is_said_to_be_left(
    api: KubeApi, folder: Path, log: Log
) -> None:
    async with running(api, folder) as server:
        await until(lambda: api.get(OWN))
        api.faults.append(Fault(method="DELETE", status=500))
        await server.controller.leave()
    assert log.has("Cannot delete the lease", "HTTP 500")
