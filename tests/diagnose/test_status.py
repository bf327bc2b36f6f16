"""`konnectivity status` on real servers and agents: what it says, and how it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import pytest
from tests.diagnose.conftest import Command, put_pod, put_workload
from tests.e2e.conftest import ConnectAgent, StartServer
from tests.peers.kube_api import KubeApi

from konnectivity.diagnose import tables
from konnectivity.diagnose.facts import AgentFacts, Facts
from konnectivity.diagnose.gather import gather
from konnectivity.diagnose.matrix import server_names
from konnectivity.diagnose.screen import screen
from konnectivity.diagnose.sources import Sources
from konnectivity.diagnose.view import EXIT_STATUS, StatusView, look
from konnectivity.diagnose.wording import clean, seconds, size
from konnectivity.kube import heartbeat
from konnectivity.kube.heartbeat import Connection, Failure, Heartbeat, Time

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]x[/]\u202e\r\n" + "y" * 65_536
LEASES = "/apis/coordination.k8s.io/v1/namespaces/konnectivity-heartbeats/leases"


@pytest.fixture
def argv(sources: Sources, kubeconfig: str) -> list[str]:
    return ["status", f"--server={sources.servers[0].url}", f"--kubeconfig={kubeconfig}"]


def printed(view: StatusView, *, width: int = 120, wide: bool = False) -> str:
    """The screen as a terminal of that width that knows no colours would have it."""
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=width, highlight=False)
    for part in screen(view, wide=wide):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def beating(agent: str, *servers: str, failing: str = "", **more: Any) -> AgentFacts:
    """An agent of whom only its heartbeat is known."""
    now = Time(time.time())
    told = Heartbeat(
        agent=agent,
        version="1.2",
        started_at=now,
        updated_at=now,
        state="running",
        servers_wanted=2,
        servers=tuple(Connection(name, "", "1.2", now, 0.004, 3) for name in servers),
        failures=(Failure("s2:8091", failing, "timed out", now, 9),) if failing else (),
    )
    return AgentFacts(agent, heartbeat=told, heard_at=now, **more)


def facts_of(*agents: AgentFacts) -> Facts:
    return Facts(taken_at=time.time(), agents=agents)


async def test_an_installation_that_is_well_is_healthy(
    start_server: StartServer,
    connect_agent: ConnectAgent,
    api: KubeApi,
    konnectivity: Command,
    argv: list[str],
) -> None:
    put_workload(api, desired=2, ready=2)
    await start_server()
    for name in ("a1", "a2"):
        put_pod(api, name)
        await connect_agent(name)
    status, out, err = await konnectivity(*argv, "-o", "json")
    found = json.loads(out)
    errors = [each for each in found["causes"] if each["error"]]
    assert (status, err, errors) == (0, "", []), found
    assert (found["schema"], found["verdict"]) == ("konnectivity.status/v1", "healthy")
    assert {each["id"]: each["pairs"][0]["state"] for each in found["agents"]} == {
        "a1": "ok",
        "a2": "ok",
    }
    assert [each["answer"] for each in found["steps"]] == ["ok"] * 4


async def test_an_agent_that_is_missing_is_seen_in_the_matrix_and_first(
    start_server: StartServer,
    connect_agent: ConnectAgent,
    api: KubeApi,
    konnectivity: Command,
    argv: list[str],
) -> None:
    put_workload(api, desired=2, ready=1)
    put_pod(api, "a1")
    put_pod(api, "a2", waiting="ImagePullBackOff")
    await start_server()
    await connect_agent("a1")
    status, out, _ = await konnectivity(*argv)
    assert status == 1
    assert "Tunnel DEGRADED: 1 of 2 agent-server pairs missing" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["a2", "--"] in [line[:2] for line in lines]
    assert out.index("\na2") < out.index("\na1")
    assert "1 of 2 ready, ImagePullBackOff x1" in out
    assert "KNC102" in out
    assert "\x1b" not in out


async def test_nothing_that_answers_cannot_be_told(konnectivity: Command) -> None:
    status, out, err = await konnectivity("status", "--server=http://127.0.0.1:1", "--no-cluster")
    assert (status, err) == (3, "")
    assert "Tunnel UNKNOWN: no server answers, 1 server was asked" in out
    assert "connection refused" in out


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--output=xml", "output must be one of text, wide, json, name"),
        ("--server=ftp://x", 'server "ftp://x" is not http://host:port'),
        ("--server=http://u:p@h:1", "has a password in it"),
        ("--server-ca=/nope", "server-ca: stat /nope: no such file"),
        ("--kubeconfig=/nope", "kubeconfig: stat /nope: no such file"),
        ("--context=x", 'context "x": there is no configuration file'),
        ("--timeout=0s", "timeout must be > 0s"),
        ("--staus", "unknown flag: --staus"),
    ],
)
async def test_a_mistake_is_one_line_and_status_2(
    flag: str, expected: str, konnectivity: Command
) -> None:
    status, out, err = await konnectivity("status", flag)
    assert (status, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
    assert "u:p" not in err.replace("http://u:p@h:1", "")


async def test_without_a_kubeconfig_the_servers_view_is_shown(
    start_server: StartServer, connect_agent: ConnectAgent, konnectivity: Command, argv: list[str]
) -> None:
    await start_server()
    await connect_agent("a1")
    status, out, _ = await konnectivity(*argv[:2])
    assert status == 0
    assert "Tunnel HEALTHY: 1 agent-server pair, none missing" in out
    assert "the Kubernetes API was not asked" in out


async def test_wait_ends_when_all_is_well(
    start_server: StartServer, connect_agent: ConnectAgent, konnectivity: Command, argv: list[str]
) -> None:
    await start_server()
    waiting = asyncio.create_task(
        konnectivity(*argv[:2], "--wait", "--wait-timeout=20s", "--interval=100ms", "-o", "name")
    )
    await connect_agent("a1")
    assert (await waiting)[:2] == (0, "a1\n")
    status, out, _ = await konnectivity(
        *argv[:1], "--server=http://127.0.0.1:1", "--no-cluster", "--wait", "--wait-timeout=0s"
    )
    assert status == 3
    assert "UNKNOWN" in out


@pytest.mark.parametrize("view", tables.VIEWS)
async def test_each_view_is_a_table_and_a_list_in_json(
    view: str,
    start_server: StartServer,
    connect_agent: ConnectAgent,
    konnectivity: Command,
    argv: list[str],
) -> None:
    await start_server()
    await connect_agent("a1")
    _, out, _ = await konnectivity(*argv, f"--{view}", "-o", "json")
    found = json.loads(out)
    assert found["schema"] == "konnectivity.status/v1"
    assert isinstance(found[view], list)
    if view in ("servers", "agents", "history"):
        assert found[view]


async def test_what_agents_call_themselves_reaches_no_terminal(
    api: KubeApi, konnectivity: Command, argv: list[str]
) -> None:
    told = beating("x" * 200 + HOSTILE[:50], "s1", failing="tcp").heartbeat
    assert told is not None
    lease = heartbeat.lease_of(told, name="h", interval=60.0)
    pod = {"containerStatuses": [{"state": {"waiting": {"reason": HOSTILE, "message": HOSTILE}}}]}
    put_pod(api, "p1", conditions=[], **pod)
    api.put(f"{LEASES}/h", lease)
    for extra in ([], ["-o", "wide"], ["--agents"], ["--history"], ["-o", "name"]):
        _, out, err = await konnectivity(*argv, *extra)
        text = out + err
        assert not [char for char in text if not (char.isprintable() or char == "\n")]
        assert len(out) < 20_000
    _, out, _ = await konnectivity(*argv, "-o", "json")
    assert json.loads(out)["agents"]
    assert out.isascii()


async def test_no_colour_without_a_terminal_and_with_one_that_wants_none(
    start_server: StartServer, konnectivity: Command, argv: list[str]
) -> None:
    await start_server()
    for environment in ({}, {"NO_COLOR": "1"}, {"COLUMNS": "60"}):
        _, out, _ = await konnectivity(*argv, **environment)
        assert "\x1b" not in out
        assert max(map(len, out.splitlines())) <= int(environment.get("COLUMNS", "200"))


async def test_a_configuration_file_names_the_installation(
    start_server: StartServer,
    connect_agent: ConnectAgent,
    konnectivity: Command,
    sources: Sources,
    folder: Any,
) -> None:
    await start_server()
    await connect_agent("a1")
    file = folder / "config.toml"
    url = sources.servers[0].url
    file.write_text(f'context = "x"\n[contexts.x]\nserver = ["{url}"]\nno-cluster = true\n')
    status, out, err = await konnectivity("status", KONNECTIVITY_CONFIG=str(file))
    assert (status, err) == (0, ""), out
    file.write_text('[contexts.x]\nservers = ["a"]\n')
    status, _, err = await konnectivity("status", "--context=x", f"--config={file}")
    assert status == 2
    assert 'contexts.x: "servers" is none of server, ' in err
    status, _, err = await konnectivity("status", "--context=y", f"--config={file}")
    assert 'there is no context "y"; known: x' in err


async def test_an_agent_that_is_connected_twice_is_in_trouble(
    start_server: StartServer, connect_agent: ConnectAgent, sources: Sources
) -> None:
    await start_server()
    await connect_agent("a1")
    facts = await gather(dataclasses.replace(sources, cluster=None))
    (agent,) = facts.agents
    (peer,) = agent.seen["server-1"]
    twice = dataclasses.replace(agent, seen={"server-1": (peer, peer)})
    view = look(dataclasses.replace(facts, agents=(twice,)))
    assert view.agents[0].pairs[0].state == "doubled"
    assert "connected more than once to server-1" in view.agents[0].trouble


def test_heartbeats_alone_make_a_matrix() -> None:
    facts = facts_of(beating("a1", "s1", "s2"), beating("a2", "s1", failing="tcp"))
    assert server_names(facts) == ["s1", "s2"]
    view = look(facts)
    assert (view.verdict, view.summary) == ("degraded", "1 of 4 agent-server pairs missing")
    network = next(each for each in view.steps if each.name == "network")
    assert (network.answer, network.text) == (
        "bad",
        "agents fail to connect, by stage: tcp x1",
    )


def test_a_heartbeat_that_is_late_tells_nothing_of_connections() -> None:
    view = look(facts_of(beating("a1", "s1"), beating("a2", "s1", silent=True)))
    assert {each.id: each.pairs[0].state for each in view.agents} == {"a1": "ok", "a2": "unknown"}
    assert view.verdict in ("unknown", "degraded")


def test_no_agent_anywhere_connected_is_down() -> None:
    assert look(facts_of(beating("a1", "s1", "s2"), beating("a2"))).verdict == "degraded"
    view = look(facts_of(beating("a1", failing="tcp"), beating("a2", failing="tcp")))
    assert (view.verdict, view.agents[0].trouble) == ("down", "connected to no server")
    assert EXIT_STATUS[view.verdict] == 1


def test_a_server_that_only_agents_know_of_is_missed() -> None:
    """All are connected to the one server that anybody has seen, and want two."""
    view = look(facts_of(beating("a1", "s1"), beating("a2", "s1")))
    assert view.verdict == "degraded"
    assert view.agents[0].trouble == "connected to 1 of 2 servers"


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_screen_fits_the_terminal_and_tells_of_a_thousand_agents_in_sums(width: int) -> None:
    agents = [beating(f"agent-{number:04}", "s1", "s2") for number in range(1000)]
    agents[700] = beating("agent-0700", "s1", failing="tls")
    text = printed(look(facts_of(*agents)), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) < 120
    if width >= 80:
        assert text.index("agent-0700") < text.index("agent-0001")
        assert "980 more" in text


def test_texts_are_cut_in_the_middle_and_made_harmless() -> None:
    assert clean("a\x1b[31mb\n") == "a\\x1b[31mb\\n"
    assert len(clean(HOSTILE)) == 48
    assert clean("konnectivity-agent-" + "x" * 60 + "-7kq2p").endswith("-7kq2p")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0004, "0.4ms"), (0.0031, "3.1ms"), (0.09, "90ms"), (1.23, "1.2s"), (59, "59s"),
     (300, "5m"), (7200, "2h"), (61 * 86400, "61d"), (-5, "-5.0s")],
)  # fmt: skip
def test_durations_are_short(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_sizes_have_three_digits_at_most() -> None:
    assert [size(each) for each in (0, 812, 1234, 99_960, 5e12)] == [
        "0 B", "812 B", "1.2 kB", "100 kB", "5.0 TB",
    ]  # fmt: skip
