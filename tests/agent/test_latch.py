"""When a new agent is ready: all servers once, or a limit; then any server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.e2e.conftest import Log, log

from konnectivity.agent.latch import Latch
from konnectivity.agent.options import AgentOptions, validate

__all__ = ["log"]  # a fixture


@dataclass
class Servers:
    reached: int = 0
    wanted: int = 1


def test_without_a_wait_nothing_is_lacking() -> None:
    assert Latch(Servers(), wait=0.0).look() == ""


def test_until_all_servers_were_there_once_what_is_lacking_is_said(log: Log) -> None:
    servers = Servers()
    latch = Latch(servers, wait=900.0)
    assert latch.look() == "connected to 0 of 1 servers"
    servers.reached, servers.wanted = 1, 2
    assert latch.look() == "connected to 1 of 2 servers"
    assert log.has('"Not on all servers yet" lacking="connected to 1 of 2 servers"')
    servers.reached = 2
    assert latch.look() == ""
    assert log.has('"On all servers" servers=2')
    servers.reached, servers.wanted = 1, 3
    assert latch.look() == ""


def test_the_same_lack_is_logged_once(log: Log) -> None:
    latch = Latch(Servers(), wait=900.0)
    latch.look()
    latch.look()
    assert len([line for line in log.lines if "Not on all servers yet" in line]) == 1


def test_a_number_of_servers_that_is_not_known_is_not_taken_for_one() -> None:
    latch = Latch(Servers(reached=1), wait=900.0)
    latch.known = lambda: False
    assert latch.look() == "the servers' leases are not known yet"
    latch.known = lambda: True
    assert latch.look() == ""


async def test_after_the_wait_one_server_is_enough_but_none_is_not(log: Log) -> None:
    servers = Servers(reached=0, wanted=2)
    latch = Latch(servers, wait=0.05)
    await asyncio.sleep(0.1)
    assert latch.look()
    servers.reached = 1
    assert latch.look() == ""
    assert log.has("Ready without having been on all servers", "connected to 1 of 2 servers")


def test_a_negative_wait_is_refused() -> None:
    problems = validate(AgentOptions(ca_cert=__file__, ready_wait_for_all_servers=-1.0))
    assert problems == ["ready-wait-for-all-servers must be >= 0, got -1s"]
