"""`konnectivity explain`: the chain to a webhook, an API service, a pod or a node."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.diagnose.conftest import Command
from tests.diagnose.faults import listeners
from tests.diagnose.faults.cluster import AGENT, NAMESPACE, POLICIES, Installation
from tests.e2e.conftest import ConnectAgent, Pair, StartServer
from tests.net.authority import Authority, Identity
from tests.peers.kube_api import Fault
from tests.peers.ports import free_port

from konnectivity.cli.explain import main
from konnectivity.cli.flags import parse
from konnectivity.diagnose.explain.chain import Chain, Link, State, Verdict
from konnectivity.diagnose.explain.choice import choose
from konnectivity.diagnose.explain.report import exit_status, lines
from konnectivity.diagnose.explain.run import ExplainOptions, explain
from konnectivity.diagnose.sources import from_options
from konnectivity.observe.status import (
    Dials,
    Peer,
    Program,
    ServerStatus,
    Time,
    Traffic,
    TunnelCounts,
)
from konnectivity.server.app import Server

HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
PODS = "/api/v1/namespaces/default/pods"
API = "/apis/apiregistration.k8s.io/v1/apiservices"
WEBHOOK = ["configuration", "service", "endpoints", "egress selection", "server", "agent"]
POLICY = ["agent's policy", "network policy"]


def webhook(cluster: Installation, port: int, *, ready: bool = True, bundle: bytes = b"") -> None:
    """A webhook whose service is on loopback, with one endpoint."""
    reference = {"namespace": "default", "name": "hook", "port": port}
    client = {"service": reference, "caBundle": base64.b64encode(bundle).decode()}
    cluster.api.put(f"{HOOKS}/hooks", {"webhooks": [{"clientConfig": client, "name": "a.example"}]})
    ports = [{"port": port, "name": "https", "targetPort": "web"}]
    spec = {"clusterIP": "127.0.0.1", "ports": ports, "selector": {"app": "hook"}}
    cluster.api.put(f"{SERVICES}/hook", {"spec": spec})
    endpoint = {"addresses": ["127.0.0.1"], "nodeName": "node-a", "conditions": {"ready": ready}}
    cluster.api.put(
        f"{SLICES}/hook",
        {
            "metadata": {"labels": {"kubernetes.io/service-name": "hook"}},
            "ports": [{"name": "https", "port": port}],
            "endpoints": [endpoint],
        },
    )


def bundle_of(authority: Authority) -> bytes:
    return Path(authority.bundle).read_bytes()


async def chains(cluster: Installation, kind: str, name: str, *flags: str) -> list[Chain]:
    options = parse(ExplainOptions, [f"--kubeconfig={cluster.kubeconfig}", *flags]).options
    return await explain(kind, name, options, from_options(options, {}), {})


async def links(cluster: Installation, kind: str, name: str, *flags: str) -> list[Link]:
    (chain,) = await chains(cluster, kind, name, *flags)
    return list(chain.links)


def admin(server: Server) -> str:
    return f"--server=http://127.0.0.1:{server.options.admin_port}"


def through(pair: Pair) -> tuple[str, str]:
    return admin(pair.server), f"--frontend={pair.server.options.uds_name}"


def titles(found: list[Link]) -> list[str]:
    return [each.title for each in found]


def arguments(cluster: Installation, *more: str) -> None:
    """Give the agent's pod further arguments."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{AGENT}"
    pod = cluster.api.get(path)
    assert pod is not None
    pod["spec"]["containers"][0]["args"] += more
    cluster.api.put(path, pod)


# Whole


async def test_a_webhook_that_works_from_end_to_end(
    cluster: Installation, pair: Pair, authority: Authority
) -> None:
    identity = authority.issue("hook.default.svc")
    bundle = bundle_of(authority)
    context = listeners.serving(identity.cert, identity.key, alpn="")
    async with listeners.listening(listeners.stay_silent, tls=context) as port:
        webhook(cluster, port, bundle=bundle)
        (chain,) = await chains(cluster, "webhook", "hooks", *through(pair))
    assert titles(list(chain.links)) == [*WEBHOOK, *POLICY, "dial"]
    assert chain.verdict is Verdict.WHOLE
    text = {each.title: each.text for each in chain.links}
    assert text["agent"] == "server-1: node-a, by default: any agent will do"
    assert text["endpoints"] == f"127.0.0.1:{port} on node-a"
    assert text["dial"].endswith("and its certificate is valid")
    assert "failurePolicy Fail, timeout 10 s" in text["configuration"]
    assert chain.summary == "validating webhook hooks/a.example: WHOLE, a dial came through"


async def test_a_pod_is_reached_by_the_kubelet_of_its_node(
    cluster: Installation, pair: Pair
) -> None:
    port = free_port()
    cluster.node("node-a", "127.0.0.1", port=port)
    found = await links(cluster, "pod", f"kube-system/{AGENT}", *through(pair))
    assert titles(found)[:2] == ["pod", "node"]
    assert found[1].text == f"kubelet of node-a at 127.0.0.1:{port}, its InternalIP"
    assert (found[-1].title, found[-1].state) == ("dial", State.BROKEN)
    assert "connection refused" in found[-1].text
    assert "systemctl status kubelet" in found[-1].remedy


async def test_the_address_of_a_node_is_the_one_that_kube_apiserver_prefers(
    cluster: Installation,
) -> None:
    node = cluster.api.get("/api/v1/nodes/node-a")
    assert node is not None
    node["status"]["addresses"].append({"type": "Hostname", "address": "node-a.example"})
    cluster.api.put("/api/v1/nodes/node-a", node)
    found = await links(cluster, "node", "node-a")
    assert "node-a.example:10250, its Hostname" in found[0].text
    found = await links(
        cluster, "node", "node-a", "--kubelet-preferred-address-types=ExternalIP,InternalIP"
    )
    assert "127.0.0.1:10250, its InternalIP" in found[0].text


async def test_an_api_service_of_kube_apiserver_itself_takes_no_tunnel(
    cluster: Installation,
) -> None:
    cluster.api.put(f"{API}/v1.apps", {"spec": {"group": "apps"}})
    (chain,) = await chains(cluster, "apiservice", "v1.apps")
    assert (titles(list(chain.links)), chain.verdict) == (["configuration"], Verdict.WHOLE)


async def test_kube_apiserver_may_dial_endpoints_instead(cluster: Installation) -> None:
    webhook(cluster, 443)
    service = cluster.api.get(f"{SERVICES}/hook")
    assert service is not None
    service["spec"]["clusterIP"] = "None"
    cluster.api.put(f"{SERVICES}/hook", service)
    found = await links(cluster, "webhook", "hooks")
    assert (found[-1].title, found[-1].state) == ("service", State.BROKEN)
    assert "headless" in found[-1].text
    found = await links(cluster, "webhook", "hooks", "--enable-aggregator-routing")
    assert found[1].text == "default/hook:443 at 127.0.0.1:443"


async def test_a_service_that_stands_for_a_name(cluster: Installation) -> None:
    webhook(cluster, 443)
    spec = {"type": "ExternalName", "externalName": "hooks.example"}
    cluster.api.put(f"{SERVICES}/hook", {"spec": spec})
    found = await links(cluster, "webhook", "hooks")
    assert "stands for hooks.example:443" in found[1].text


async def test_an_api_service_tells_what_kube_apiserver_found(cluster: Installation) -> None:
    webhook(cluster, 443)
    condition = {"type": "Available", "status": "False", "reason": "FailedDiscoveryCheck"}
    reference = {"namespace": "default", "name": "hook"}
    item = {
        "spec": {"service": reference, "insecureSkipTLSVerify": True, "caBundle": "!"},
        "status": {"conditions": [condition | {"message": "no response"}]},
    }
    cluster.api.put(f"{API}/v1beta1.metrics.k8s.io", item)
    found = await links(cluster, "apiservice", "v1beta1.metrics.k8s.io")
    assert found[0].text == (
        "calls service default/hook:443; Available is False: FailedDiscoveryCheck, no response; "
        "its certificate is not checked"
    )
    assert titles(found)[1:3] == ["service", "endpoints"]


# Broken


async def test_a_service_that_is_gone(cluster: Installation, pair: Pair) -> None:
    webhook(cluster, 443)
    cluster.api.remove(f"{SERVICES}/hook")
    (chain,) = await chains(cluster, "webhook", "hooks/a.example", *through(pair))
    assert titles(list(chain.links)) == ["configuration", "service"]
    assert "BROKEN at service: default/hook:443: the service does not exist" in chain.summary


async def test_no_endpoint_that_is_ready_and_why(cluster: Installation) -> None:
    webhook(cluster, 443, ready=False)
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    pod = {
        "metadata": {"labels": {"app": "hook"}},
        "status": {"containerStatuses": [{"name": "web", "state": state}]},
    }
    cluster.api.put(f"{PODS}/hook-1", pod)
    found = await links(cluster, "webhook", "hooks")
    assert (found[-1].title, found[-1].state) == ("endpoints", State.BROKEN)
    assert found[-1].text == "none of 1 is ready: hook-1: CrashLoopBackOff"
    cluster.api.remove(f"{PODS}/hook-1")
    cluster.api.remove(f"{SLICES}/hook")
    found = await links(cluster, "webhook", "hooks")
    assert found[-1].text == "none: no pod of default has the labels app=hook"


async def test_a_port_that_no_pod_has_the_name_of(cluster: Installation) -> None:
    webhook(cluster, 443)
    item = cluster.api.get(f"{SLICES}/hook")
    assert item is not None
    cluster.api.put(f"{SLICES}/hook", item | {"ports": [{"name": "other", "port": 8443}]})
    found = await links(cluster, "webhook", "hooks")
    assert (found[-1].title, found[-1].state) == ("endpoints", State.BROKEN)
    assert "no pod has the targetPort" in found[-1].text


async def test_a_ca_bundle_that_is_none(cluster: Installation) -> None:
    webhook(cluster, 443, bundle=b"garbage")
    found = await links(cluster, "webhook", "hooks")
    assert titles(found) == ["configuration", "caBundle"]


async def test_a_certificate_of_another_ca_breaks_at_the_dial(
    cluster: Installation, pair: Pair, authority: Authority, folder: Path
) -> None:
    identity = authority.issue("hook.default.svc")
    other = bundle_of(Authority(folder, "other"))
    context = listeners.serving(identity.cert, identity.key, alpn="")
    async with listeners.listening(listeners.stay_silent, tls=context) as port:
        webhook(cluster, port, bundle=other)
        found = await links(cluster, "webhook", "hooks", *through(pair))
    assert (found[-1].title, found[-1].state) == ("dial", State.BROKEN)
    assert found[-1].text.startswith(f"TLS with 127.0.0.1:{port} fails")
    assert "hook.default.svc" in found[-1].remedy


async def test_a_server_without_agents(cluster: Installation, start_server: StartServer) -> None:
    server = await start_server()
    found = await links(cluster, "node", "node-a", admin(server))
    assert (found[-1].title, found[-1].state) == ("server", State.BROKEN)


async def test_no_agent_for_the_address_by_the_servers_strategies(
    cluster: Installation, start_server: StartServer, connect_agent: ConnectAgent
) -> None:
    server = await start_server(proxy_strategies="destHost,destCIDR")
    await connect_agent(metadata=[("agentid", "a"), ("agentidentifiers", "ipv4=10.9.9.9")])
    found = await links(cluster, "node", "node-a", admin(server))
    assert (found[-1].title, found[-1].state) == ("agent", State.BROKEN)
    assert found[-1].text == (
        "server-1: no agent for 127.0.0.1:10250; destHost, destCIDR have none"
    )


async def test_a_network_policy_with_its_rule(cluster: Installation, pair: Pair) -> None:
    cluster.node("node-a", "10.1.2.3")
    rule = {"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]}
    cluster.api.put(f"{POLICIES}/narrow", {"spec": spec})
    found = await links(cluster, "node", "node-a", admin(pair.server))
    assert (found[-1].title, found[-1].state) == ("network policy", State.BROKEN)
    assert "10.1.2.3:10250" in found[-1].text
    assert "narrow: spec.egress[0] allows 10.9.0.0/16" in found[-1].text


async def test_a_policy_of_the_backends_namespace(cluster: Installation, pair: Pair) -> None:
    webhook(cluster, 443)
    item = cluster.api.get(f"{SLICES}/hook")
    assert item is not None
    item["endpoints"][0]["addresses"] = ["10.1.4.18"]
    cluster.api.put(f"{SLICES}/hook", item)
    pod = {"metadata": {"labels": {"app": "hook"}}, "status": {"podIP": "10.1.4.18"}}
    cluster.api.put(f"{PODS}/hook-1", pod)
    agents = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "other"}}}
    spec = {"podSelector": {"matchLabels": {"app": "hook"}}, "ingress": [{"from": [agents]}]}
    path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/closed"
    cluster.api.put(path, {"spec": spec})
    found = await links(cluster, "webhook", "hooks", admin(pair.server))
    assert (found[-1].title, found[-1].state) == ("network policy", State.BROKEN)
    assert "in at 10.1.4.18:443: closed: spec.ingress[0] allows namespaces" in found[-1].text
    agents["podSelector"] = {"matchLabels": {"k8s-app": "konnectivity-agent"}}
    cluster.api.put(path, {"spec": spec})
    found = await links(cluster, "webhook", "hooks", admin(pair.server))
    assert ("network policy", "closed: allowed") in [(each.title, each.text) for each in found]
    cluster.api.faults.append(Fault(path="namespaces/default/networkpolicies", status=403))
    (chain,) = await chains(cluster, "webhook", "hooks", admin(pair.server))
    assert chain.verdict is Verdict.UNKNOWN
    assert "allow list on networkpolicies.networking.k8s.io" in chain.summary


async def test_a_policy_that_is_not_enforced_breaks_nothing(
    cluster: Installation, pair: Pair, identity: Identity
) -> None:
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": []}
    cluster.api.put(f"{POLICIES}/closed", {"spec": spec})
    context = listeners.serving(identity.cert, identity.key, alpn="")
    async with listeners.listening(listeners.stay_silent, tls=context) as port:
        cluster.node("node-a", "127.0.0.1", port=port)
        (chain,) = await chains(cluster, "node", "node-a", *through(pair))
    (policy,) = (each for each in chain.links if each.title == "network policy")
    assert (policy.state, chain.verdict) == (State.NOTE, Verdict.WHOLE)
    assert "the dial came through" in policy.text


async def test_the_agents_own_policy(cluster: Installation, pair: Pair) -> None:
    arguments(cluster, "--allow-destinations=10.0.0.0/8:443,10.1.0.0/16")
    cluster.node("node-a", "192.0.2.7")
    found = await links(cluster, "node", "node-a", admin(pair.server))
    assert (found[-2].title, found[-2].state) == ("agent's policy", State.BROKEN)
    assert "may not dial 192.0.2.7:10250" in found[-2].text


@pytest.mark.parametrize("kind", ["webhook", "apiservice", "pod", "node"])
async def test_what_does_not_exist_is_said(cluster: Installation, kind: str) -> None:
    (only,) = await links(cluster, kind, "nothing")
    assert only.state is State.BROKEN
    assert "nothing" in only.text


# Egress selection


def selector(folder: Path, *selections: dict[str, Any]) -> str:
    path = folder / "egress.yaml"
    document = {"kind": "EgressSelectorConfiguration", "egressSelections": list(selections)}
    path.write_text(json.dumps(document))
    return f"--egress-config={path}"


async def test_without_a_selection_the_tunnel_is_not_taken(
    cluster: Installation, folder: Path
) -> None:
    found = await links(cluster, "node", "node-a", selector(folder, {"name": "etcd"}))
    assert (found[-1].title, found[-1].state) == ("egress selection", State.BROKEN)
    assert "there is no selection `cluster`" in found[-1].text


async def test_a_url_goes_by_another_selection(
    cluster: Installation, pair: Pair, folder: Path
) -> None:
    client = {"url": "https://hooks.example/validate"}
    cluster.api.put(f"{HOOKS}/out", {"webhooks": [{"clientConfig": client, "name": "b.example"}]})
    (chain,) = await chains(cluster, "webhook", "out", admin(pair.server))
    assert titles(list(chain.links)) == ["configuration", "egress selection"]
    assert "not through the tunnel" in chain.summary
    assert exit_status([chain]) == 3
    door = {"uds": {"udsName": pair.server.options.uds_name}}
    connection = {"proxyProtocol": "GRPC", "transport": door}
    flag = selector(folder, {"name": "controlplane", "connection": connection})
    (chain,) = await chains(cluster, "webhook", "out", admin(pair.server), flag)
    assert "agent" in titles(list(chain.links))


# What cannot be told


async def test_a_server_that_does_not_answer_leaves_it_open(cluster: Installation) -> None:
    (chain,) = await chains(cluster, "node", "node-a", f"--server=http://127.0.0.1:{free_port()}")
    assert chain.verdict is Verdict.UNKNOWN
    assert "CANNOT TELL, server: " in chain.summary
    assert "connection refused" in chain.summary


async def test_a_missing_right_is_named(cluster: Installation) -> None:
    cluster.api.faults.append(Fault(path="/nodes", status=403))
    (chain,) = await chains(cluster, "node", "node-a")
    assert chain.verdict is Verdict.UNKNOWN
    assert "allow list on nodes" in chain.summary


async def test_without_a_cluster_nothing_is_claimed() -> None:
    options = parse(ExplainOptions, ["--no-cluster"]).options
    for kind in ("webhook", "apiservice", "pod", "node"):
        found = await explain(kind, "x", options, from_options(options, {}), {})
        assert exit_status(found) == 3


async def test_an_object_that_makes_no_sense_is_no_traceback(cluster: Installation) -> None:
    client = {"service": {"namespace": "default", "name": "hook", "port": "https"}}
    cluster.api.put(f"{HOOKS}/odd", {"webhooks": [{"clientConfig": client, "name": "a.example"}]})
    (chain,) = await chains(cluster, "webhook", "odd")
    assert chain.verdict is Verdict.UNKNOWN
    assert "makes no sense" in chain.summary


# Which agent


def status(
    *agents: tuple[str, dict[str, tuple[str, ...]], bool], strategies: tuple[str, ...]
) -> ServerStatus:
    """A server with these agents: id, identifiers, whether it drains; the first is the oldest."""
    peers = tuple(
        Peer(
            id=name,
            software="",
            version="",
            address="192.0.2.1:1",
            connected_since=Time(float(place)),
            identifiers=identifiers,
            certificate=None,
            round_trip=None,
            draining=draining,
            credit=False,
            tunnels=TunnelCounts(),
            traffic=Traffic(),
            dials=0,
            dials_failed=0,
        )
        for place, (name, identifiers, draining) in enumerate(agents)
    )
    program = Program(
        id="s",
        version="",
        started_at=Time(0.0),
        state="running",
        ready=True,
        unready="",
        modes=("grpc",),
        strategies=strategies,
        listeners=(),
        limits=(),
        certificates=(),
    )
    return ServerStatus(
        generated_at=Time(0.0),
        last_event="",
        server=program,
        agents=peers,
        dials=Dials(pending=0, succeeded=0, failed={}, recent=(), recent_failures=()),
        tunnel_counts=TunnelCounts(),
        tunnels_ended={},
        tunnels=(),
    )


def test_strategies_are_asked_in_order_and_say_why() -> None:
    made = status(
        ("a", {"ipv4": ("10.0.0.7",)}, False),
        ("b", {"cidr": ("10.0.0.0/8",)}, False),
        ("c", {"cidr": ("10.1.0.0/16", "10.0.0.0/8")}, False),
        ("d", {"default-route": ("true",)}, False),
        strategies=("destHost", "destCIDR", "defaultRoute"),
    )
    found = choose(made, "10.0.0.7:10250")
    assert (found.strategy, found.agents, found.why) == (
        "destHost",
        ("a",),
        "it announces 10.0.0.7",
    )
    found = choose(made, "10.1.2.3:443")
    assert (found.strategy, found.agents) == ("destCIDR", ("c",))
    assert found.why == "it announces 10.1.0.0/16, the smallest network around 10.1.2.3"
    assert choose(made, "10.2.2.3:443").agents == ("b", "c")
    found = choose(made, "192.0.2.1:443")
    assert (found.agents, found.passed) == (("d",), ("destHost", "destCIDR"))
    assert choose(status(strategies=("destHost",)), "h:1").passed == ("destHost",)


def test_an_agent_that_drains_is_taken_only_where_there_is_no_other() -> None:
    made = status(("a", {}, True), ("b", {}, False), strategies=("default",))
    assert choose(made, "h:1").agents == ("b",)
    made = status(("a", {}, True), strategies=("default",))
    assert choose(made, "h:1").why.endswith("it drains, and there is no other")


# The command


def test_what_others_have_chosen_is_harmless() -> None:
    hostile = "\x1b[2J\n✗ forged"
    shown = list(lines([Chain(hostile, (Link("agent", State.BROKEN, hostile, hostile),))]))
    assert not any("\x1b" in line or "\n" in line for line in shown)


async def test_the_command_prints_the_verdict_first(
    cluster: Installation, konnectivity: Command
) -> None:
    argv = ("explain", "node", "node-a", f"--kubeconfig={cluster.kubeconfig}")
    nobody = f"--server=http://127.0.0.1:{free_port()}"
    status, out, err = await konnectivity(*argv, nobody, "-o", "json")
    found = json.loads(out)
    assert (found["schema"], found["exitStatus"], status) == ("konnectivity.explain/v1", 3, 3)
    assert (found["chains"][0]["links"][0]["title"], err) == ("node", "")
    status, out, err = await konnectivity(*argv, nobody)
    assert (status, err) == (3, "")
    assert out.startswith("node node-a: CANNOT TELL, server: ")
    status, out, _ = await konnectivity("explain", "--help")
    assert (status, "explain webhook" in out) == (0, True)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["webhook"],
        ["secret", "x"],
        ["node", "x", "-o", "yaml"],
        ["node", "x", "--frontend=/nonexistent"],
        ["node", "x", "--kubelet-preferred-address-types=Pigeon"],
    ],
)
def test_misuse_is_a_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
