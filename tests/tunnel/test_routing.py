"""Which agent gets a dial. Agents are plain objects here; real ones are in `e2e`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konnectivity.tunnel.identifiers import Identifiers
from konnectivity.tunnel.routing import LEAST_LOADED, RANDOM, Backends
from konnectivity.tunnel.strategies import DOUBT

V6 = "9878::7675:1292:9183:7562"


class Agent:
    """One stream of an agent. `silence` is the test's to set; a probe begins one."""

    def __init__(
        self,
        agent_id: str,
        identifiers: str = "",
        *,
        draining: bool = False,
        load: int = 0,
        parallel: int = 1,
    ) -> None:
        self.agent_id = agent_id
        self.identifiers = Identifiers.parse(identifiers)
        self.draining = draining
        self.load = load
        self.parallel = parallel
        self.silence: float | None = None

    def probe(self) -> None:
        self.silence = 0.0

    def __repr__(self) -> str:
        return f"{self.agent_id}({self.identifiers.text})"


class Table(Backends):
    """A table whose random numbers come from a seed."""

    def __init__(self, *agents: Agent, order: str = "default", selection: str = RANDOM) -> None:
        chance = random.Random(4)  # noqa: S311 - a test that repeats itself
        super().__init__(chance.randrange, strategies=order.split(","), selection=selection)
        for agent in agents:
            self.add(agent)  # type: ignore[arg-type]

    def picks(self, address: str = "", *, excluded: Sequence[Agent] = ()) -> set[object]:
        """Who is chosen in fifty dials."""
        return {self.choose(address, excluded) for _ in range(50)}  # type: ignore[arg-type]

    def drop(self, agent: Agent) -> None:
        self.remove(agent)  # type: ignore[arg-type]


# default


def test_default_takes_any_agent_until_none_is_left() -> None:
    """Scenarios 30 and 47."""
    a, b = Agent("a"), Agent("b", "host=x")
    table = Table(a, b)
    assert table.picks("x:80") == {a, b}
    assert table.counts() == {"default": 2}
    table.drop(a)
    assert table.picks() == {b}
    table.drop(b)
    assert table.choose() is None
    assert table.counts() == {"default": 0}


def test_every_agent_gets_its_share() -> None:
    agents = [Agent(str(number)) for number in range(10)]
    table = Table(*agents)
    for gone in agents[::3]:  # places in the table are filled again
        table.drop(gone)
    shares = Counter(table.choose() for _ in range(6000))
    assert len(shares) == 6
    assert all(800 < share < 1200 for share in shares.values())


def test_a_stream_that_is_entered_twice_is_there_once() -> None:
    """Scenarios 47 to 49."""
    agent = Agent("a", "host=x&default-route=true&cidr=10.0.0.0/8")
    table = Table(agent, agent, order="default,destHost,defaultRoute,destCIDR")
    assert set(table.counts().values()) == {1}
    table.drop(agent)
    assert set(table.counts().values()) == {0}
    assert table.choose("x") is None


def test_removing_what_is_not_there_changes_nothing() -> None:
    """Scenarios 47 to 49."""
    identifiers = "host=x&default-route=true&cidr=10.0.0.0/8"
    agent = Agent("a", identifiers)
    table = Table(agent, order="default,destHost,defaultRoute,destCIDR")
    table.drop(Agent("a", identifiers))
    table.drop(Agent("b", identifiers))
    assert set(table.counts().values()) == {1}
    assert list(table.streams()) == [agent]


# defaultRoute


def test_default_route_takes_agents_that_offer_themselves() -> None:
    """Scenarios 31 and 48."""
    offering = Agent("c", "default-route=true")
    table = Table(Agent("a"), Agent("b", "default-route=false"), offering, order="defaultRoute")
    assert table.picks("anything:1") == {offering}
    assert table.counts() == {"defaultRoute": 1}
    assert len(table) == 3
    table.drop(offering)
    assert table.choose("anything:1") is None


# destHost


def test_dest_host_takes_the_agent_that_announces_the_host() -> None:
    """Scenarios 32, 33 and 49."""
    name, v4 = Agent("a", "host=node1.mydomain.com"), Agent("b", "ipv4=1.2.3.4")
    v6, unspecified = Agent("c", f"ipv6={V6}"), Agent("d", "ipv6=::")
    table = Table(name, v4, v6, unspecified, Agent("e"), order="destHost")
    for host, agent in {
        "node1.mydomain.com": name,
        "1.2.3.4": v4,
        f"[{V6}]": v6,
        "[::]": unspecified,
    }.items():
        assert table.picks(f"{host}:10250") == {agent}
        assert table.choose(host) is agent
    assert table.choose("node2.mydomain.com:10250") is None
    assert table.choose("") is None


def test_dest_host_keeps_to_the_agent_that_came_first() -> None:
    """Scenarios 35 and 50: several agents with the same identifiers."""
    agents = [Agent(name, "host=x&ipv4=1.2.3.4") for name in "abc"]
    table = Table(*agents, order="destHost,default")
    assert table.picks("x") == {agents[0]}
    table.drop(agents[0])
    assert table.picks("1.2.3.4:1") == {agents[1]}
    table.drop(agents[2])
    assert table.picks("x") == {agents[1]}
    table.drop(agents[1])
    assert table.choose("x") is None


def test_what_no_agent_stands_for_falls_to_the_next_strategy() -> None:
    """Scenario 34."""
    known, other = Agent("a", "host=x"), Agent("b", "host=y")
    table = Table(known, other, order="destHost,default")
    assert table.picks("x") == {known}
    assert table.picks("z") == {known, other}
    table.drop(known)
    assert table.picks("x") == {other}
    table.drop(other)
    assert table.choose("x") is None


def test_strategies_are_asked_in_the_order_of_their_list() -> None:
    named, offering, plain = Agent("a", "host=x"), Agent("b", "default-route=1"), Agent("c")
    table = Table(named, offering, plain, order="destHost,defaultRoute,default")
    assert table.picks("x") == {named}
    assert table.picks("y") == {offering}
    table.drop(offering)
    assert table.picks("y") == {named, plain}
    first = Table(named, offering, plain, order="default,destHost")
    assert first.picks("x") == {named, offering, plain}


def test_a_strategy_that_is_named_twice_counts_once() -> None:
    """Scenario 54."""
    agent = Agent("a", "host=x")
    table = Table(agent, order="default,destHost,default")
    assert list(table.counts()) == ["default", "destHost"]
    assert table.choose("y") is agent


def test_w56_a_host_matches_however_it_is_written() -> None:
    agent = Agent("a", "ipv6=2001:DB8::1&host=Node-1.Example&ipv4=10.0.0.7")
    table = Table(agent, order="destHost")
    for host in ("[2001:db8:0::1]:1", "node-1.example.:1", "NODE-1.EXAMPLE", "[::ffff:a00:7]:1"):
        assert table.choose(host) is agent, host


def test_w70_an_agent_with_many_identifiers_is_one_agent() -> None:
    many = "host=x&host=y&ipv4=1.2.3.4&ipv6=::1&cidr=10.0.0.0/8&cidr=fd00::/8"
    table = Table(Agent("a", many), Agent("b"), order="destHost,destCIDR,default")
    assert table.counts() == {"destHost": 1, "destCIDR": 1, "default": 2}


# destCIDR


def test_w61_dest_cidr_takes_the_smallest_network_around_the_address() -> None:
    wide = Agent("a", "cidr=10.0.0.0/8&cidr=fd00::/8")
    narrow = Agent("b", "cidr=10.1.0.0/16&cidr=fd00:1::/64")
    host = Agent("c", "cidr=10.1.2.3/32")
    everything = Agent("d", "cidr=0.0.0.0/0")
    table = Table(wide, narrow, host, everything, order="destCIDR")
    for address, agent in {
        "10.2.0.1": wide,
        "10.1.9.9": narrow,
        "10.1.2.3": host,
        "192.0.2.1": everything,
        "[fd00:2::1]": wide,
        "[fd00:1::1]": narrow,
        "[::ffff:10.1.2.3]": host,
    }.items():
        assert table.picks(f"{address}:10250") == {agent}, address
    assert table.choose("[2001:db8::1]:1") is None
    assert table.choose("node-1:1") is None


def test_w61_networks_that_nobody_has_any_more_are_forgotten() -> None:
    wide, narrow = Agent("a", "cidr=10.0.0.0/8"), Agent("b", "cidr=10.1.0.0/16")
    twin = Agent("c", "cidr=10.1.0.0/16")
    table = Table(wide, narrow, twin, order="destCIDR")
    assert table.picks("10.1.0.1:1") == {narrow, twin}
    table.drop(narrow)
    assert table.picks("10.1.0.1:1") == {twin}
    table.drop(twin)
    assert table.picks("10.1.0.1:1") == {wide}
    table.drop(wide)
    assert table.choose("10.1.0.1:1") is None


V6_ADDRESSES = st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None)


@given(st.lists(st.ip_addresses(v=4) | V6_ADDRESSES, min_size=1, max_size=20), st.data())
def test_w61_dest_cidr_agrees_with_a_look_at_all_networks(
    bases: list[IPv4Address | IPv6Address], data: st.DataObject
) -> None:
    networks = {
        ip_network((base, data.draw(st.integers(0, base.max_prefixlen))), strict=False)
        for base in bases
    }
    agents = {network: Agent(str(network), f"cidr={network}") for network in networks}
    table = Table(*agents.values(), order="destCIDR")
    for address in bases:
        around = [each for each in networks if address in each]
        longest = max(around, key=lambda each: each.prefixlen)
        chosen = table.choose(str(address) if address.version == 4 else f"[{address}]:1")
        assert chosen is agents[longest]


def test_a_choice_costs_the_same_for_one_network_and_for_thousands() -> None:
    """Counted by the silences looked at, which every candidate is asked for."""
    looks = 0

    class Counted(Agent):
        @property
        def silence(self) -> float | None:  # type: ignore[override]
            nonlocal looks
            looks += 1
            return None

        @silence.setter
        def silence(self, value: float | None) -> None:
            pass

    many = [
        Counted(str(n), f"host=n{n}&cidr=10.{n // 256}.{n % 256}.0/24&default-route=1")
        for n in range(5000)
    ]
    for selection in (RANDOM, LEAST_LOADED):
        for order in ("default", "destHost", "destCIDR", "defaultRoute"):
            table = Table(*many, order=order, selection=selection)
            looks = 0
            assert table.choose("n7:1") or table.choose("10.0.7.1:1")
            assert looks <= 5, (order, selection)


# Draining


def test_a_draining_agent_is_the_last_resort() -> None:
    """Scenario 51."""
    draining, fresh = Agent("a", draining=True), Agent("b")
    assert Table(draining, fresh).picks() == {fresh}
    assert Table(draining).picks() == {draining}
    both = Table(draining, Agent("c", draining=True))
    assert len(both.picks()) == 2
    assert Table().choose() is None


def test_a_draining_agent_is_the_last_resort_for_its_host() -> None:
    """Scenario 52: never another host's agent."""
    draining, fresh = Agent("a", "host=x", draining=True), Agent("b", "host=x")
    other = Agent("c", "host=y")
    table = Table(draining, fresh, other, order="destHost,default")
    assert table.picks("x") == {fresh}
    table.drop(fresh)
    assert table.picks("x") == {draining}
    assert table.picks("y") == {other}


def test_of_two_streams_of_one_agent_the_one_that_drains_is_not_preferred() -> None:
    old, new = Agent("a", draining=True), Agent("a")
    table = Table(old, new)
    new.silence = None
    assert table.choose() is new


# Silent agents


def test_w54_of_two_streams_of_one_agent_the_oldest_that_lives_is_preferred() -> None:
    old, new = Agent("a", "host=x"), Agent("a", "host=x")
    for order in ("default", "destHost"):
        table = Table(old, order=order)
        old.silence = new.silence = None
        table.add(new)  # type: ignore[arg-type]
        assert len(table) == 1
        assert (old.silence, new.silence) == (0.0, 0.0)  # both are asked
        assert table.picks("x") == {old}  # the agent may be about to close a duplicate
        new.silence = None  # it has answered, the old one has not
        assert table.picks("x") == {new}
        old.silence = None
        assert table.picks("x") == {old}
        table.drop(old)
        assert table.picks("x") == {new}


def test_w54_an_agent_with_one_stream_is_not_asked() -> None:
    agent = Agent("a")
    table = Table(agent, Agent("b"))
    assert agent.silence is None
    assert len(table) == 2


def parallels(agent_id: str, *loads: int, identifiers: str = "") -> list[Agent]:
    """The streams of one agent that wants as many."""
    return [Agent(agent_id, identifiers, load=load, parallel=len(loads)) for load in loads]


@pytest.mark.parametrize("selection", [RANDOM, LEAST_LOADED])
@pytest.mark.parametrize("order", ["default", "destHost", "destCIDR"])
def test_of_an_agents_parallel_streams_the_least_loaded_gets_the_dial(
    order: str, selection: str
) -> None:
    streams = parallels("a", 2, 0, 1, identifiers="ipv4=10.0.0.1&cidr=10.0.0.0/8")
    table = Table(*streams, order=order, selection=selection)
    for _ in range(9):
        chosen = table.choose("10.0.0.1:1")
        assert isinstance(chosen, Agent)
        chosen.load += 1
    assert [each.load for each in streams] == [4, 4, 4]
    assert len(table) == 1


def test_parallel_streams_are_no_duplicates_until_there_are_more_than_the_agent_wants() -> None:
    streams = parallels("a", 0, 0, 0)
    table = Table(*streams)
    assert [each.silence for each in streams] == [None] * 3
    further = Agent("a", parallel=3)
    table.add(further)  # type: ignore[arg-type]
    assert [each.silence for each in (*streams, further)] == [0.0] * 4
    streams[1].silence = None  # it lives
    assert table.picks() == {streams[1]}


def test_an_agent_that_wants_one_stream_again_has_the_old_ones_asked() -> None:
    streams = [*parallels("a", 0, 0, 0), Agent("a")]
    Table(*streams)
    assert [each.silence for each in streams] == [0.0] * 4


def test_parallel_streams_that_drain_or_are_excluded_leave_the_dials_to_the_others() -> None:
    busy, idle, other = streams = parallels("a", 7, 0, 8)
    idle.draining = True
    table = Table(*streams)
    assert table.picks() == {busy}
    assert table.picks(excluded=[busy]) == {other}
    table.drop(other)
    assert table.picks(excluded=[busy]) == {idle}


def test_least_loaded_compares_agents_not_streams() -> None:
    several, one = parallels("a", 3, 3, 3), Agent("b", load=5)
    assert Table(*several, one, selection=LEAST_LOADED).picks() == {one}


def test_agents_get_their_share_however_many_streams_they_have() -> None:
    table = Table(*parallels("a", 0, 0, 0), Agent("b"))
    shares = Counter(getattr(table.choose(), "agent_id", "") for _ in range(2000))
    assert all(850 < shares[agent_id] < 1150 for agent_id in "ab")


def test_w53_an_agent_that_owes_an_answer_comes_after_all_others() -> None:
    silent, draining, fresh = Agent("a"), Agent("b", draining=True), Agent("c")
    silent.silence = 0.1
    table = Table(silent, draining, fresh)
    assert table.picks() == {fresh}
    table.drop(fresh)
    assert table.picks() == {draining}
    table.drop(draining)
    assert table.picks() == {silent}


@pytest.mark.parametrize("order", ["destHost,default", "destCIDR,default"])
def test_w53_a_host_whose_agent_has_fallen_silent_is_reached_through_others(order: str) -> None:
    silent, other = Agent("a", "ipv4=10.0.0.7&cidr=10.0.0.7/32"), Agent("b")
    table = Table(silent, other, order=order)
    silent.silence = DOUBT / 2  # as it is for a moment with every ping
    assert table.picks("10.0.0.7:1") == {silent}
    silent.silence = DOUBT
    assert table.picks("10.0.0.7:1") == {other}
    table.drop(other)
    assert table.picks("10.0.0.7:1") == {silent}


# Second tries


@pytest.mark.parametrize("selection", [RANDOM, LEAST_LOADED])
@pytest.mark.parametrize("order", ["default", "destHost,default", "destCIDR,default"])
def test_an_excluded_agent_is_out_of_the_question(order: str, selection: str) -> None:
    failed, other = Agent("a", "ipv4=10.0.0.7&cidr=10.0.0.0/8"), Agent("b")
    table = Table(failed, other, order=order, selection=selection)
    assert table.picks("10.0.0.7:1", excluded=[failed]) == {other}
    table.drop(other)
    assert table.picks("10.0.0.7:1", excluded=[failed]) == {None}


# Load


def test_w55_least_loaded_spreads_dials_evenly() -> None:
    agents = [Agent(str(number)) for number in range(20)]
    table = Table(*agents, selection=LEAST_LOADED)
    for _ in range(2000):
        chosen = table.choose()
        assert isinstance(chosen, Agent)
        chosen.load += 1
    loads = [agent.load for agent in agents]
    assert max(loads) - min(loads) < 10  # at random it is five times as much


def test_w55_least_loaded_holds_among_agents_of_one_host() -> None:
    idle, busy = Agent("a", "host=x"), Agent("b", "host=x", load=5)
    assert Table(busy, idle, order="destHost", selection=LEAST_LOADED).picks("x") == {idle}
    idle.draining = True
    assert Table(busy, idle, order="destHost", selection=LEAST_LOADED).picks("x") == {busy}


# Readiness


def test_w57_a_server_is_ready_when_any_strategy_has_an_agent() -> None:
    table = Table(order="destHost,default")
    assert not table.ready
    assert table.unready_reason == "no connection to any proxy agent"
    table.add(Agent("a"))  # type: ignore[arg-type]
    assert table.ready
    assert table.unready_reason == ""


def test_w57_agents_that_no_strategy_can_use_make_no_server_ready() -> None:
    table = Table(Agent("a"), Agent("b", "uid=7"), order="destHost,defaultRoute")
    assert not table.ready
    assert table.unready_reason == (
        "agents are connected (2), but none has an identifier that --proxy-strategies asks for: "
        "destHost (host, ipv4 or ipv6), defaultRoute (default-route=true)"
    )


def test_draining_agents_count_as_ready() -> None:
    assert Table(Agent("a", draining=True)).ready
