"""Faults between agents and servers that run, seen from both ends: heartbeats and admin API."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.proxy import ChaosProxy
from tests.diagnose.faults import listeners
from tests.diagnose.faults.cluster import AGENT, Installation
from tests.diagnose.faults.doctor import Diagnosis, diagnose
from tests.e2e.conftest import ConnectAgent, StartAgent, StartServer, until
from tests.net.authority import DAY, NOW, Authority
from tests.peers.kube_api import Fault, KubeApi
from tests.peers.ports import free_port
from tests.peers.program import flags, running

from konnectivity.kube import heartbeat
from konnectivity.kube.heartbeat import Heartbeat
from konnectivity.server.app import Server

BEATS = "/apis/coordination.k8s.io/v1/namespaces/konnectivity-heartbeats/leases"
REVIEWING = {
    "agent_namespace": "kube-system",
    "agent_service_account": "konnectivity-agent",
    "authentication_audience": "system:konnectivity-server",
    "cluster_ca_cert": "",
}
StartBeating = Callable[..., Awaitable[Server]]


@pytest.fixture
def beating(cluster: Installation) -> dict[str, Any]:
    """Options of the agent in the pod on node-a, which writes heartbeats as often as it may."""
    return {"agent_id": AGENT, "heartbeat_interval": 1.0, "kubeconfig": cluster.kubeconfig}


async def told(api: KubeApi, enough: Callable[[Heartbeat], object]) -> None:
    """Wait for a heartbeat that says `enough`."""

    def look() -> bool:
        lease = api.get(f"{BEATS}/{AGENT}")
        return bool(lease and enough(heartbeat.read(lease)))

    await until(look)


@pytest.fixture
def start_beating(
    cluster: Installation,
    beating: dict[str, Any],
    start_server: StartServer,
    start_agent: StartAgent,
) -> StartBeating:
    """A server, and that agent once its heartbeat names it: as met, or with `failing` as not.

    `server` and `agent` override options.
    """

    async def start(
        *,
        server: dict[str, Any] | None = None,
        agent: dict[str, Any] | None = None,
        failing: bool = False,
    ) -> Server:
        made = await start_server(**server or {})
        await start_agent(**beating | (agent or {}))
        await told(cluster.api, lambda beat: beat.failures if failing else beat.servers)
        return made

    return start


async def look(cluster: Installation, *servers: Server | int) -> Diagnosis:
    """A run with these servers' admin ports."""
    ports = [each if isinstance(each, int) else each.options.admin_port for each in servers]
    names = [f"--server=http://127.0.0.1:{port}" for port in ports]
    return await diagnose(f"--kubeconfig={cluster.kubeconfig}", "--settling=0s", *names)


def second(folder: Path) -> dict[str, Any]:
    """What another server on this machine has of its own."""
    return {
        "server_id": "server-2",
        "uds_name": str(folder / "second.sock"),
        "agent_port": free_port(),
        "health_port": free_port(),
        "admin_port": free_port(),
    }


async def test_a_sound_pair_is_healthy(cluster: Installation, start_beating: StartBeating) -> None:
    server = await start_beating()
    found = await look(cluster, server)
    assert (found.codes, found.unknown, found.status) == (set(), set(), 0)


async def test_an_agent_that_dials_a_closed_port(
    cluster: Installation, start_beating: StartBeating
) -> None:
    server = await start_beating(agent={"proxy_server_port": free_port()}, failing=True)
    found = await look(cluster, server)
    assert found.codes == {"KNC302"}
    assert found.finding("KNC302")["evidence"].startswith("refused")
    assert found.skipped["KNC201"] == ["KNC302"]


async def test_packets_that_no_server_ever_saw(start_server: StartServer) -> None:
    server = await start_server()
    with listeners.dropping() as port:
        found = await diagnose(
            "--node",
            f"--target=localhost:{port}",
            "--timeout=1s",
            f"--server=http://127.0.0.1:{server.options.admin_port}",
        )
    assert found.codes == {"KNC302"}
    finding = found.finding("KNC302")
    assert "the agent dialled, and no server saw it" in finding["evidence"]
    assert any("server server-1: saw no failed attempt" in each for each in finding["saidBy"])


async def test_an_agent_that_does_not_trust_the_server(
    cluster: Installation, start_beating: StartBeating, stranger: Authority
) -> None:
    server = await start_beating(agent={"ca_cert": stranger.bundle}, failing=True)
    found = await look(cluster, server)
    assert found.codes == {"KNC203"}
    said = found.finding("KNC203")["saidBy"]
    assert any("heartbeat of agent" in each and "CA of our bundle" in each for each in said)
    assert any("server server-1: a TLS handshake failed" in each for each in said)


async def test_an_agent_whose_certificate_is_a_strangers(
    cluster: Installation, start_beating: StartBeating, stranger: Authority
) -> None:
    own = stranger.issue("agent")
    shown = {"agent_cert": own.cert, "agent_key": own.key}
    server = await start_beating(agent=shown, failing=True)
    found = await look(cluster, server)
    assert found.codes == {"KNC203"}
    assert "does not accept the agent's certificate" in found.finding("KNC203")["evidence"]


async def test_a_server_certificate_that_has_expired(
    cluster: Installation, start_beating: StartBeating, authority: Authority
) -> None:
    old = authority.expired("localhost", "127.0.0.1")
    shown = {"cluster_cert": old.cert, "cluster_key": old.key}
    server = await start_beating(server=shown, failing=True)
    found = await look(cluster, server)
    assert found.codes == {"KNC601"}
    assert found.status == 2
    assert found.skipped["KNC203"] == ["KNC601"]


async def test_a_certificate_that_is_about_to_expire(
    cluster: Installation, start_beating: StartBeating, authority: Authority
) -> None:
    soon = authority.issue("localhost", "127.0.0.1", not_after=NOW + 3 * DAY)
    shown = {"cluster_cert": soon.cert, "cluster_key": soon.key}
    server = await start_beating(server=shown)
    found = await look(cluster, server)
    assert (found.codes, found.status) == ({"KNC601"}, 1)
    assert "server server-1: cluster-cert" in found.finding("KNC601")["subject"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"authenticated": False, "error": "invalid bearer token"}, "refuses the agent's token"),
        (
            {
                "authenticated": True,
                "user": {"username": "system:serviceaccount:kube-system:konnectivity-agent"},
                "audiences": ["https://kubernetes.default.svc"],
            },
            "another audience",
        ),
        (
            {
                "authenticated": True,
                "user": {"username": "system:serviceaccount:default:intruder"},
                "audiences": ["system:konnectivity-server"],
            },
            "another account's",
        ),
    ],
    ids=["rejected", "audience", "account"],
)
async def test_a_token_that_is_refused(
    cluster: Installation,
    start_beating: StartBeating,
    folder: Path,
    answer: dict[str, Any],
    words: str,
) -> None:
    cluster.api.review = lambda spec: answer
    (folder / "token").write_text("secret-of-the-agent")
    server = await start_beating(
        server=REVIEWING | {"kubeconfig": cluster.kubeconfig},
        agent={"service_account_token_path": str(folder / "token")},
        failing=True,
    )
    found = await look(cluster, server)
    assert found.codes == {"KNC204"}
    finding = found.finding("KNC204")
    assert words in finding["evidence"]
    assert any("server server-1: refused an agent" in each for each in finding["saidBy"])
    assert "secret-of-the-agent" not in str(found.document)


async def test_a_server_that_may_not_review_tokens(
    cluster: Installation, start_beating: StartBeating, folder: Path
) -> None:
    refusal = Fault("POST", "/tokenreviews", status=403, message="tokenreviews is forbidden")
    cluster.api.faults.append(refusal)
    (folder / "token").write_text("token")
    server = await start_beating(
        server=REVIEWING | {"kubeconfig": cluster.kubeconfig},
        agent={"service_account_token_path": str(folder / "token")},
        failing=True,
    )
    found = await look(cluster, server)
    assert found.codes == {"KNC104"}
    assert found.skipped["KNC204"] == found.skipped["KNC201"] == ["KNC104"]


async def test_a_balancer_that_always_leads_to_the_same_server(
    cluster: Installation,
    beating: dict[str, Any],
    start_server: StartServer,
    start_agent: StartAgent,
    folder: Path,
) -> None:
    first = await start_server(server_count=2)
    other = await start_server(server_count=2, **second(folder))
    async with ChaosProxy(("127.0.0.1", first.options.agent_port)) as balancer:
        await start_agent(**beating, proxy_server_port=balancer.port)
        await told(cluster.api, lambda beat: beat.met_again >= 5)
        found = await look(cluster, first, other)
    assert found.codes == {"KNC201"}
    finding = found.finding("KNC201")
    assert finding["subject"].endswith("→ server server-2")
    assert "a balancer sticks" in finding["evidence"]


async def test_a_server_count_that_is_too_low(
    cluster: Installation,
    beating: dict[str, Any],
    start_server: StartServer,
    start_agent: StartAgent,
    folder: Path,
) -> None:
    first = await start_server(server_count=1)
    other = await start_server(server_count=1, **second(folder))
    await start_agent(**beating)
    await told(cluster.api, lambda beat: beat.servers)
    found = await look(cluster, first, other)
    assert found.codes == {"KNC202"}
    assert "2 servers exist, 1 are counted" in found.finding("KNC202")["evidence"]
    assert found.skipped["KNC201"] == ["KNC202"]


async def test_two_agents_with_one_id(
    cluster: Installation, start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    server = await start_server()
    await connect_agent("twin")
    await connect_agent("twin")
    found = await look(cluster, server)
    assert (found.codes, found.status) == ({"KNC206"}, 1)
    assert "2 connections under the id 'twin'" in found.finding("KNC206")["evidence"]


async def test_an_agent_that_pings_too_often(
    cluster: Installation, start_server: StartServer, start_agent: StartAgent
) -> None:
    server = await start_server()
    agent = await start_agent()
    await until(lambda: agent.connections.links)
    link = agent.connections.links[0]
    for _ in range(8):
        link._h2.core.ping(os.urandom(8))  # type: ignore[union-attr]
        link._h2.flush()  # type: ignore[union-attr]
        await asyncio.sleep(0.01)
    kinds = server.exchange.events
    await until(lambda: any(e.kind == "agent_disconnected" for e in kinds.after(0)))
    await until(lambda: len(server.exchange.backends))
    found = await look(cluster, server)
    assert (found.codes, found.status) == ({"KNC207"}, 1)


async def test_a_server_whose_clock_is_wrong(
    server_options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ntime.time = lambda: real() - 3600\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.pathsep.join(sys.path)}")
    async with running("server", *flags(**server_options)) as program:
        await program.line("Server is up")
        port = server_options["admin_port"]
        found = await diagnose(f"--server=http://127.0.0.1:{port}", "--settling=0s")
    assert (found.codes, found.status) == ({"KNC603"}, 2)
    assert "its clock is 3600 s behind ours" in found.finding("KNC603")["evidence"]


async def test_one_of_two_servers_that_does_not_answer_is_no_verdict_about_it(
    cluster: Installation, start_beating: StartBeating
) -> None:
    server = await start_beating()
    found = await look(cluster, server, free_port())
    assert found.status == 3
    assert "KNC201" in found.unknown
    assert found.document["problems"]


async def test_an_admin_port_that_sends_half_a_document(cluster: Installation) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"apiVersion":"v1","kind":"ServerStatus","agents":[{"id":"\x1b[2J'
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await writer.drain()

    async with listeners.listening(half) as port:
        found = await look(cluster, port)
    assert (found.codes, found.status) == (set(), 3)
