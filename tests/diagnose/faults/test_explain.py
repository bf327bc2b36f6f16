"""`konnectivity explain`: the chain to a webhook, an API service, a pod or a node."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from konnectivity.cli.explain import ExplainOptions, explain, main
from konnectivity.diagnose.explain import Link, State
from tests.diagnose.faults import listeners
from tests.diagnose.faults.cluster import Installation
from tests.e2e.conftest import Pair, StartServer
from tests.net.authority import Identity
from tests.peers import tool
from tests.peers.ports import free_port

from konnectivity.cli.flags import parse

HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


def webhook(cluster: Installation, port: int) -> None:
    """A webhook whose service is on loopback."""
    reference = {"namespace": "default", "name": "hook", "port": port}
    config = {"clientConfig": {"service": reference}, "name": "a.example"}
    cluster.api.put(f"{HOOKS}/hooks", {"webhooks": [config]})
    spec = {"clusterIP": "127.0.0.1", "ports": [{"port": port}]}
    cluster.api.put("/api/v1/namespaces/default/services/hook", {"spec": spec})
    ready = {
        "metadata": {"labels": {"kubernetes.io/service-name": "hook"}},
        "endpoints": [{"addresses": ["127.0.0.1"]}],
    }
    cluster.api.put(f"{SLICES}/hook", ready)


async def links(cluster: Installation, kind: str, name: str, *flags: str) -> list[Link]:
    argv = [f"--kubeconfig={cluster.kubeconfig}", *flags]
    return await explain(kind, name, parse(ExplainOptions, argv).options, {})


def through(pair: Pair) -> tuple[str, str]:
    options = pair.server.options
    return f"--server=http://127.0.0.1:{options.admin_port}", f"--frontend={options.uds_name}"


def titles(found: list[Link]) -> list[tuple[str, State]]:
    return [(each.title, each.state) for each in found]


async def test_a_webhook_that_works_from_end_to_end(
    cluster: Installation, pair: Pair, identity: Identity
) -> None:
    context = listeners.serving(identity.cert, identity.key, alpn="")
    async with listeners.listening(listeners.stay_silent, tls=context) as port:
        webhook(cluster, port)
        found = await links(cluster, "webhook", "hooks", *through(pair))
    assert titles(found) == [
        ("configuration", State.WORKS),
        ("service", State.WORKS),
        ("egress selection", State.UNKNOWN),
        ("server", State.WORKS),
        ("agent", State.WORKS),
        ("dial", State.WORKS),
    ]
    assert "by strategy default for 127.0.0.1" in found[4].text


async def test_it_ends_where_the_chain_breaks(cluster: Installation, pair: Pair) -> None:
    webhook(cluster, free_port())
    found = await links(cluster, "webhook", "hooks/a.example", *through(pair))
    assert (found[-1].title, found[-1].state) == ("dial", State.BROKEN)
    assert "connection refused" in found[-1].text
    cluster.api.remove("/api/v1/namespaces/default/services/hook")
    found = await links(cluster, "webhook", "hooks", *through(pair))
    assert titles(found) == [("configuration", State.WORKS), ("service", State.BROKEN)]


async def test_a_server_without_agents_is_where_it_breaks(
    cluster: Installation, start_server: StartServer
) -> None:
    server = await start_server()
    admin = f"--server=http://127.0.0.1:{server.options.admin_port}"
    found = await links(cluster, "node", "node-a", admin)
    assert (found[-1].title, found[-1].state) == ("server", State.BROKEN)


async def test_a_pod_is_reached_by_the_kubelet_of_its_node(
    cluster: Installation, pair: Pair
) -> None:
    cluster.node("node-a", "127.0.0.1", port=free_port())
    name = "kube-system/konnectivity-agent-node-a"
    found = await links(cluster, "pod", name, *through(pair))
    assert [each.title for each in found][:2] == ["pod", "node"]
    assert "on node node-a" in found[0].text
    assert found[-1].state is State.BROKEN


@pytest.mark.parametrize("kind", ["webhook", "apiservice", "pod", "node"])
async def test_what_does_not_exist_is_said(cluster: Installation, kind: str) -> None:
    (only,) = await links(cluster, kind, "nothing")
    assert only.state is State.BROKEN
    assert "nothing" in only.text


async def run(*argv: str) -> Any:
    text = await tool.run(sys.executable, "-m", "konnectivity", "explain", *argv)
    return json.loads(text)


async def test_the_command_prints_json(cluster: Installation) -> None:
    flags = (f"--kubeconfig={cluster.kubeconfig}", "-o", "json", "--frontend=/nonexistent")
    found = await run("node", "node-a", *flags)
    assert found["schema"] == "konnectivity.explain/v1"
    assert found["links"][0]["title"] == "node"


@pytest.mark.parametrize("argv", [[], ["webhook"], ["secret", "x"], ["node", "x", "-o", "yaml"]])
def test_misuse_is_a_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
