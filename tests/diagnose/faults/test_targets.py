"""Faults behind the agents, and of servers and agents under load; dials go through real tunnels."""

from __future__ import annotations

import asyncio
import base64
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.diagnose.faults import listeners
from tests.diagnose.faults.cluster import Installation
from tests.diagnose.faults.doctor import Diagnosis, diagnose
from tests.e2e.conftest import (
    ConnectAgent,
    Pair,
    StartAgent,
    StartEndpoint,
    StartPair,
    StartServer,
    until,
)
from tests.net.authority import Authority, Identity
from tests.peers import schema
from tests.peers.admin import server_status
from tests.peers.endpoint import Endpoint
from tests.peers.ports import free_port
from tests.peers.program import flags, running

from konnectivity.client import grpc, http_connect
from konnectivity.diagnose.checks.load import NEAR
from konnectivity.errors import DialError
from konnectivity.server.app import Server
from konnectivity.tunnel.budget import TunnelLimits

HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


def bundle_of(authority: Authority) -> bytes:
    return Path(authority.bundle).read_bytes()


def admin(server: Server) -> str:
    return f"--server=http://127.0.0.1:{server.options.admin_port}"


async def probe(server: Server, *flags: str, mode: str = "grpc") -> Diagnosis:
    """A run that dials through the server's frontend."""
    frontend = f"--frontend={server.options.uds_name}"
    how = f"--frontend-mode={mode}"
    return await diagnose("--probe", admin(server), frontend, how, "--settling=0s", *flags)


@pytest.mark.parametrize("mode", ["grpc", "http-connect"])
async def test_a_kubelet_that_answers_is_healthy(
    cluster: Installation, pair: Pair, identity: Identity, mode: str
) -> None:
    context = listeners.serving(identity.cert, identity.key, alpn="")
    async with listeners.listening(listeners.stay_silent, tls=context) as port:
        cluster.node("node-a", "127.0.0.1", port=port)
        found = await probe(pair.server, f"--kubeconfig={cluster.kubeconfig}", mode=mode)
    assert (found.codes, found.unknown, found.status) == (set(), set(), 0)


@pytest.mark.parametrize("mode", ["grpc", "http-connect"])
async def test_a_kubelet_whose_port_is_closed(cluster: Installation, pair: Pair, mode: str) -> None:
    port = free_port()
    cluster.node("node-a", "127.0.0.1", port=port)
    found = await probe(pair.server, f"--kubeconfig={cluster.kubeconfig}", mode=mode)
    assert found.codes == {"KNC401"}
    finding = found.finding("KNC401")
    assert finding["subject"] == f"kubelet node-a at 127.0.0.1:{port}"
    assert finding["evidence"].startswith("refused")


async def test_a_kubelet_behind_a_firewall(cluster: Installation, pair: Pair) -> None:
    with listeners.dropping() as port:
        cluster.node("node-a", "127.0.0.1", port=port)
        found = await probe(pair.server, f"--kubeconfig={cluster.kubeconfig}")
    assert found.codes == {"KNC401"}
    assert found.finding("KNC401")["evidence"].startswith("timed out")


async def test_a_webhook_whose_certificate_is_of_another_ca(
    cluster: Installation,
    pair: Pair,
    identity: Identity,
    authority: Authority,
    stranger: Authority,
) -> None:
    """The configuration names a CA; what answers has a certificate of another one."""
    hook = stranger.issue("hook.default.svc")
    kubelet = listeners.serving(identity.cert, identity.key, alpn="")
    context = listeners.serving(hook.cert, hook.key, alpn="")
    async with (
        listeners.listening(listeners.stay_silent, tls=kubelet) as node_port,
        listeners.listening(listeners.stay_silent, tls=context) as port,
    ):
        cluster.node("node-a", "127.0.0.1", port=node_port)
        bundle = base64.b64encode(bundle_of(authority)).decode()
        reference = {"namespace": "default", "name": "hook", "port": port}
        config = {"clientConfig": {"service": reference, "caBundle": bundle}, "name": "a.example"}
        cluster.api.put(f"{HOOKS}/hooks", {"webhooks": [config]})
        spec = {"clusterIP": "127.0.0.1", "ports": [{"port": port}]}
        cluster.api.put("/api/v1/namespaces/default/services/hook", {"spec": spec})
        ready = {
            "metadata": {"labels": {"kubernetes.io/service-name": "hook"}},
            "endpoints": [{"addresses": ["127.0.0.1"]}],
        }
        slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        cluster.api.put(f"{slices}/hook", ready)
        found = await probe(pair.server, f"--kubeconfig={cluster.kubeconfig}")
    assert found.codes == {"KNC402"}
    assert found.finding("KNC402")["evidence"] == "TLS: the certificate does not fit"


async def test_a_service_that_refuses(pair: Pair) -> None:
    found = await probe(pair.server, f"--dial=127.0.0.1:{free_port()}")
    assert found.codes == {"KNC403"}


async def test_a_destination_that_the_agents_policy_forbids(start_pair: StartPair) -> None:
    made = await start_pair(agent={"allow_destinations": ("10.0.0.0/8",)})
    found = await probe(made.server, f"--dial=127.0.0.1:{free_port()}")
    assert found.codes == {"KNC404"}


async def test_without_agents_targets_are_not_blamed(
    cluster: Installation, start_server: StartServer
) -> None:
    server = await start_server()
    found = await probe(server, f"--kubeconfig={cluster.kubeconfig}")
    assert found.codes == {"KNC201"}
    assert found.skipped["KNC401"] == ["KNC201"]


async def test_a_frontend_that_is_not_there(pair: Pair) -> None:
    found = await diagnose(
        "--probe", admin(pair.server), "--frontend=/nonexistent.sock", "--dial=127.0.0.1:1"
    )
    assert found.codes == {"KNC107"}


SELECTOR = """
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: {name}
  connection:
    proxyProtocol: {protocol}
    transport:
      uds:
        udsName: {path}
"""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "controlplane"}, "no selection `cluster`"),
        ({"protocol": "Direct"}, "selection `cluster` is Direct"),
        ({"path": "/nonexistent.sock"}, "unix:/nonexistent.sock does not answer"),
        ({"protocol": "HTTPConnect"}, "proxyProtocol is HTTPConnect, the servers serve grpc"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
async def test_an_egress_selector_that_does_not_lead_to_the_server(
    start_server: StartServer, folder: Path, values: dict[str, str], words: str
) -> None:
    server = await start_server(mode="grpc")
    known = {"name": "cluster", "protocol": "GRPC", "path": server.options.uds_name}
    file = folder / "egress.yaml"
    file.write_text(SELECTOR.format(**(known | values)))
    found = await diagnose(admin(server), f"--egress-config={file}")
    assert found.codes == {"KNC107"}
    assert words in found.finding("KNC107")["evidence"]
    file.write_text(SELECTOR.format(**known))
    assert (await diagnose(admin(server), f"--egress-config={file}")).codes == set()


async def test_a_destination_to_which_most_dials_fail(pair: Pair) -> None:
    address = f"127.0.0.1:{free_port()}"
    for _ in range(12):
        with pytest.raises(DialError):
            await grpc.dial(pair.server.options.uds_name, address)
    found = await diagnose(admin(pair.server))
    assert (found.codes, found.status) == ({"KNC505"}, 1)
    assert f"12 of the last 12 to {address}" in found.finding("KNC505")["evidence"]


async def test_dials_that_no_one_answers(
    start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    server = await start_server(max_pending_dials=3)
    await connect_agent()
    dials = [
        asyncio.create_task(grpc.dial(server.options.uds_name, "10.0.0.1:10250")) for _ in range(3)
    ]
    await until(lambda: server.exchange.counters.pending_dials == 3)
    found = await diagnose(admin(server))
    for each in dials:
        each.cancel()
    await asyncio.gather(*dials, return_exceptions=True)
    assert (found.codes, found.status) == ({"KNC502"}, 2)
    assert found.finding("KNC502")["evidence"] == "3 of 3 count in use"


async def test_a_limit_that_is_reached(start_pair: StartPair, echoing: Endpoint) -> None:
    made = await start_pair(server={"max_tunnels": 1})
    address = f"127.0.0.1:{echoing.port}"
    _, writer = await grpc.dial(made.server.options.uds_name, address)
    found = await diagnose(admin(made.server))
    writer.transport.abort()
    assert (found.codes, found.status) == ({"KNC503"}, 2)


async def test_a_frontend_that_stalls_while_its_agent_sends_on(
    start_server: StartServer, connect_agent: ConnectAgent, exits: AsyncExitStack
) -> None:
    """A stock agent knows no credit: what it sends to a reader that stalls is held."""
    server = await start_server(limits=TunnelLimits(process=4 << 20))
    budget = server.exchange.budget
    agent = await connect_agent()
    dialing = asyncio.create_task(http_connect.dial(server.options.uds_name, "10.0.0.7:10250"))
    _, tunnel = await agent.accept()
    _, writer = await dialing
    exits.callback(_abort, writer)
    for part, codes in ((0.4, set()), (NEAR, {"KNC501"})):
        while budget.held < part * budget.limit:
            await agent.send(schema.data(tunnel, bytes(32 << 10)))
            await asyncio.sleep(0.005)  # little is under way when it is enough
        found = await diagnose(admin(server))
        assert (found.codes, found.status) == (codes, len(codes))
    finding = found.finding("KNC501")
    assert finding["subject"] == "server server-1: heldForFrontends"
    assert finding["evidence"].endswith(f" of {4 << 20} bytes in use")


async def test_endpoints_that_stall_while_frontends_send_on(
    start_server: StartServer,
    start_agent: StartAgent,
    start_endpoint: StartEndpoint,
    exits: AsyncExitStack,
) -> None:
    server = await start_server()
    agent = await start_agent(limits=TunnelLimits(process=8 << 20))
    budget = agent.connections.budget
    await until(lambda: len(server.exchange.backends))
    stalled = await start_endpoint(receive_buffer=4096)
    while budget.held < NEAR * budget.limit:  # each tunnel holds what its window allows
        _, writer = await http_connect.dial(server.options.uds_name, stalled.address)
        exits.callback(_abort, writer)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    writer.write(bytes(64 << 10))
                    await writer.drain()
    asked = f"--server=http://127.0.0.1:{agent.options.admin_server_port}"
    found = await diagnose(admin(server), asked)
    assert (found.codes, found.status) == ({"KNC501"}, 1)
    assert found.finding("KNC501")["subject"] == "agent agent-1: heldForEndpoints"


def _abort(writer: asyncio.StreamWriter) -> None:
    """End a tunnel whose bytes nobody takes any more."""
    writer.transport.abort()


async def test_an_agent_that_left_its_tunnels_behind(
    start_server: StartServer, start_agent: StartAgent, echoing: Endpoint
) -> None:
    server = await start_server()
    agent = await start_agent()
    await until(lambda: len(server.exchange.backends))
    address = f"127.0.0.1:{echoing.port}"
    _, writer = await grpc.dial(server.options.uds_name, address)
    for link in list(agent.connections.links):
        link.abort()
    events = server.exchange.events
    await until(lambda: any(each.kind == "agent_disconnected" for each in events.after(0)))
    await until(lambda: len(server.exchange.backends))
    found = await diagnose(admin(server))
    writer.transport.abort()
    assert (found.codes, found.status) == ({"KNC801"}, 1)
    assert found.finding("KNC801")["evidence"].startswith("1 live tunnels ended with 1 agents")


async def test_an_agent_that_gets_no_time_to_run(
    start_server: StartServer, agent_options: dict[str, Any]
) -> None:
    """Stopped and continued, as the kernel does with a process that has used up its quota."""
    server = await start_server(keepalive_time=1.0)
    often = {"sync_interval": "100ms", "sync_interval_cap": "300ms"}
    async with running("agent", *flags(**agent_options | often)) as program:
        await program.line("Connected to a server")
        program.signal(signal.SIGSTOP)
        await asyncio.sleep(2.0)
        program.signal(signal.SIGCONT)
        await _slow(server)
        program.signal(signal.SIGSTOP)
        found = await diagnose(admin(server))
    assert (found.codes, found.status) == ({"KNC504"}, 1)
    assert "starved of CPU, throttled, or stopped" in found.finding("KNC504")["evidence"]


async def _slow(server: Server) -> None:
    """Wait until the server has had the late answer."""
    async with asyncio.timeout(5):
        while True:
            status = await server_status(server)
            if any((each.round_trip or 0.0) > 0.5 for each in status.agents):
                return
            await asyncio.sleep(0.01)
