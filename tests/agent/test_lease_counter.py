"""Servers counted by their leases, through a small API server: scenario 69, W33, W41, W60."""

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

from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.lease_counter import LeaseCounter
from konnectivity.kube import leases
from konnectivity.kube.client import connect
from konnectivity.kube.watch import WatchOptions

__all__ = ["log"]  # a fixture

NAMESPACE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
SELECTOR = "k8s-app=konnectivity-server"
QUICK = WatchOptions(first_wait=0.02, longest_wait=0.05)


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as api:
        yield api


class Counting:
    def __init__(self) -> None:
        self.counters = AgentCounters()
        self.changes = 0
        self.leases: LeaseCounter

    @property
    def count(self) -> int:
        return self.leases.count

    def changed(self) -> None:
        self.changes += 1


@asynccontextmanager
async def counting(
    api: KubeApi, folder: Path, *, selector: str = SELECTOR, watch: WatchOptions = QUICK
) -> AsyncIterator[Counting]:
    made = Counting()
    config = str(api.kubeconfig(folder))
    client = await asyncio.to_thread(connect, config, qps=1000, burst=1000)
    made.leases = LeaseCounter(
        client,
        namespace="kube-system",
        selector=selector,
        counters=made.counters,
        changed=made.changed,
        watch=watch,
    )
    async with made.leases:
        yield made


def put(api: KubeApi, name: str, *, renewed: float = 0, address: str = "", **labels: str) -> None:
    item = leases.renewed(
        None,
        server_id=name,
        labels=labels or {"k8s-app": "konnectivity-server"},
        address=address,
        now=time.time() + renewed,
    )
    api.put(f"{NAMESPACE}/{leases.lease_name(name)}", item)


def path(name: str) -> str:
    return f"{NAMESPACE}/{leases.lease_name(name)}"


async def test_no_lease_none_that_matches_and_none_that_is_valid_count_as_one(
    api: KubeApi, folder: Path
) -> None:
    """Scenario 69."""
    async with counting(api, folder) as counting_:
        assert counting_.count == 1  # before any answer
        await until(lambda: api.watches)
        assert counting_.count == 1
        put(api, "other", app="other")
        put(api, "old", renewed=-99)
        await until(lambda: counting_.changes >= 2)  # the list, and `old`
        assert counting_.count == 1
        assert counting_.leases.servers is None


async def test_valid_leases_that_match_are_counted_as_they_come_and_go(
    api: KubeApi, folder: Path
) -> None:
    """Scenario 69."""
    put(api, "s1")
    put(api, "s2", address="10.0.0.2:8091")
    put(api, "old", renewed=-99)
    put(api, "other", app="other")
    async with counting(api, folder) as counting_:
        await until(lambda: counting_.count == 2)
        assert counting_.leases.servers == {"s1": "", "s2": "10.0.0.2:8091"}
        put(api, "s3")
        await until(lambda: counting_.count == 3)
        api.remove(path("s1"))
        await until(lambda: counting_.count == 2)
        put(api, "s2", app="other")
        await until(lambda: counting_.count == 1)
        assert counting_.leases.servers == {"s3": ""}


async def test_a_lease_that_is_not_renewed_stops_counting_by_itself(
    api: KubeApi, folder: Path
) -> None:
    put(api, "s1")
    put(api, "s2", renewed=-29.6)
    async with counting(api, folder) as counting_:
        await until(lambda: counting_.count == 2)
        await until(lambda: counting_.count == 1)


async def test_after_a_success_the_last_good_count_stands_while_the_api_is_away(
    api: KubeApi, folder: Path, log: Log
) -> None:
    """Scenario 69."""
    """Scenario 69: an error returns the last good count."""
    put(api, "s1", renewed=-29.3)
    put(api, "s2", renewed=-29.3)
    async with counting(api, folder) as counting_:
        await until(lambda: counting_.count == 2)
        await api.stop()
        await log.wait_for("Cannot follow server leases in namespace kube-system")
        await asyncio.sleep(0.8)  # they would have expired
        assert counting_.count == 2
        put(api, "s3")
        await api.start()
        await until(lambda: counting_.count == 1)
        assert counting_.leases.servers == {"s3": ""}
        await log.wait_for("Following server leases in namespace kube-system again")


# What is asked of the API


async def test_w60_only_leases_with_the_labels_are_asked_for_and_sent(
    api: KubeApi, folder: Path
) -> None:
    async with counting(api, folder, selector="k8s-app in (a, b),!c") as counting_:
        await until(lambda: api.watches)
        for number in range(5):
            put(api, f"other-{number}", app="other")
        put(api, "s1", **{"k8s-app": "b"})
        put(api, "s2", **{"k8s-app": "a"})
        await until(lambda: counting_.count == 2)
        assert counting_.changes <= 4  # list, watch, two leases
    (listed,) = api.asked("GET", watch=False)
    (watched,) = api.asked("GET", watch=True)
    for request in (listed, watched):
        assert request.path == NAMESPACE
        assert request.query["labelSelector"] == "k8s-app in (a, b),!c"
    assert listed.query["resourceVersion"] == "0"
    assert watched.query["allowWatchBookmarks"] == "true"
    assert 300 <= int(watched.query["timeoutSeconds"]) <= 600


async def test_lists_and_watches_are_counted_apart_by_their_answers(
    api: KubeApi, folder: Path
) -> None:
    api.faults += [
        Fault(status=500, watch=False, times=1),
        Fault(status=429, watch=True, times=2),
    ]
    async with counting(api, folder) as counting_:
        counters = counting_.counters
        await until(lambda: counters.lease_watches.total["200", ""])
    assert counters.lease_lists.total == {("500", "InternalError"): 1, ("200", ""): 1}
    assert counters.lease_watches.total == {("429", "TooManyRequests"): 2, ("200", ""): 1}


async def test_a_watch_goes_on_where_the_last_one_ended(api: KubeApi, folder: Path) -> None:
    async with counting(api, folder) as counting_:
        await until(lambda: api.watches)
        put(api, "s1")
        put(api, "other", app="other")
        await until(lambda: counting_.leases.servers)
        api.bookmark()
        api.end_watches()
        await until(lambda: len(api.asked("GET", watch=True)) == 2 and api.watches)
        put(api, "s2")
        await until(lambda: counting_.count == 2)
    assert len(api.asked("GET")) == 1
    first, second = (int(each.query["resourceVersion"]) for each in api.asked("GET", watch=True))
    assert second == first + 2


async def test_a_watch_that_is_too_old_begins_again_with_a_list(
    api: KubeApi, folder: Path, log: Log
) -> None:
    async with counting(api, folder) as counting_:
        await until(lambda: api.watches)
        put(api, "s1")
        put(api, "s2")
        await until(lambda: counting_.count == 2)
        api.expire_watches()
        await until(lambda: len(api.asked("GET")) == 2 and api.watches)
        api.remove(path("s1"))
        await until(lambda: counting_.leases.servers == {"s2": ""})
    assert not log.has("Cannot")


async def test_a_watch_that_says_nothing_for_too_long_is_begun_anew(
    api: KubeApi, folder: Path
) -> None:
    watch = WatchOptions(first_wait=0.02, longest_wait=0.05, silence=0.1)
    async with counting(api, folder, watch=watch):
        await until(lambda: len(api.asked("GET", watch=True)) >= 3)
    assert len(api.asked("GET")) == 1


# Trouble


async def test_w33_an_odd_lease_is_named_once_and_does_not_count(
    api: KubeApi, folder: Path, log: Log
) -> None:
    odd: Object = {"metadata": {"labels": {"k8s-app": "konnectivity-server"}}}
    specs: list[Any] = [{"renewTime": leases.format_time(time.time())}, {"renewTime": 7}, None]
    for number, spec in enumerate(specs):
        api.put(f"{NAMESPACE}/odd-{number}", odd | {"spec": spec})
    put(api, "s1")
    put(api, "s2")
    async with counting(api, folder) as counting_:
        await until(lambda: counting_.count == 2)
        for _ in range(5):
            assert counting_.count == 2
    for number in range(len(specs)):
        name = f"odd-{number}"
        assert sum("does not count" in line and name in line for line in log.lines) == 1


async def test_missing_rights_are_one_line_with_the_rule_that_is_missing(
    api: KubeApi, folder: Path, log: Log
) -> None:
    api.faults.append(Fault(status=403))
    async with counting(api, folder) as counting_:
        await log.wait_for(
            "Cannot follow server leases",
            "HTTP 403",
            "allow get, list, watch on leases.coordination.k8s.io in namespace kube-system",
        )
        await until(lambda: len(api.requests) > 5)
        assert counting_.count == 1
        assert sum("Cannot follow" in line for line in log.lines) == 1
        api.faults.clear()
        put(api, "s1")
        put(api, "s2")
        await until(lambda: counting_.count == 2)


@pytest.mark.parametrize("answer", ["nonsense", "[]", "{}", '{"items": [7], "metadata": 7}'])
async def test_an_api_that_answers_nonsense_is_tried_again(
    answer: str, api: KubeApi, folder: Path, log: Log
) -> None:
    api.faults.append(Fault(text=answer, times=2))
    put(api, "s1")
    put(api, "s2")
    async with counting(api, folder) as counting_:
        await until(lambda: counting_.count == 2)
    assert log.has("Cannot follow server leases")


async def test_an_api_that_drops_connections_is_tried_again(
    api: KubeApi, folder: Path, log: Log
) -> None:
    api.faults.append(Fault(drop=True, times=3))
    async with counting(api, folder):
        await until(lambda: api.watches)
    assert log.has("Cannot follow server leases")
