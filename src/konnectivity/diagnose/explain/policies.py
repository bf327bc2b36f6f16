"""What may keep a chosen agent from dialling: its own destination policy, and network policies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from konnectivity.agent.policy import Policy
from konnectivity.diagnose.case import Case, name_of
from konnectivity.diagnose.explain.chain import Link, State
from konnectivity.diagnose.explain.service import Pods
from konnectivity.diagnose.facts import AgentFacts, PodFacts
from konnectivity.diagnose.policy import (
    Destination,
    Ruling,
    destination_in_cluster,
    egress,
    ingress,
)
from konnectivity.diagnose.surroundings import labels_of, mappings
from konnectivity.flag import TRUE
from konnectivity.gotext import one_line
from konnectivity.net.address import AddressError, parse_ip, split_host_port
from konnectivity.net.connect import Denied

MOST: Final = 3
"""Agents that are looked at; those of one workload are alike."""
OWN, NETWORK = POLICIES = ("agent's policy", "network policy")
"""Titles of the links. What they forbid may come through all the same: a dial shows it."""


def obstacles(
    case: Case,
    agents: Sequence[str],
    *,
    addresses: Sequence[str],
    ends: Sequence[str],
    pods: Pods,
) -> Iterator[Link]:
    """A link for each kind of policy: the first thing that one of the agents may not do.

    The agent sees `addresses`, packets arrive at `ends`.
    """
    known = {each.id: each for each in case.agents}
    here = {each.name: each for each in case.facts.cluster.pods} if case.facts.cluster else {}
    pairs = [(known[each], here.get(known[each].pod)) for each in agents[:MOST] if each in known]
    placed = [(agent, pod) for agent, pod in pairs if pod is not None]
    if not placed:
        text = "not known, for the pods of these agents are not"
        yield Link("policies", State.NOTE, text)
        return
    yield _destination_policy(placed, addresses)
    yield _network_policy(case, placed, ends, pods)


def _destination_policy(
    placed: Sequence[tuple[AgentFacts, PodFacts]], addresses: Sequence[str]
) -> Link:
    limited = False
    for agent, pod in placed:
        rules, cluster_only = _flags(pod)
        if not rules and not cluster_only:
            continue
        limited = True
        for address in addresses:
            if why := _refusal(rules, address, cluster_only=cluster_only):
                text = f"agent {name_of(agent)} may not dial {address}: {why}"
                remedy = f"if it belongs to the cluster, add it to --allow-destinations: {address}"
                return Link(OWN, State.BROKEN, one_line(text), remedy)
    text = "allows it" if limited else "none: agents dial whatever they are asked to"
    return Link(OWN, State.WORKS, text)


def _refusal(rules: Sequence[str], address: str, *, cluster_only: bool) -> str:
    try:
        policy = Policy(rules, cluster_only=cluster_only)
        host, port = split_host_port(address)
        literal = parse_ip(host, int(port))
        if literal is not None:  # what a name stands for is seen at the agent alone
            policy.admit(host, int(port), [literal])
    except Denied as denied:
        return str(denied)
    except (AddressError, ValueError):
        return ""
    return ""


def _flags(pod: PodFacts) -> tuple[list[str], bool]:
    """`--allow-destinations` and `--cluster-destinations-only` of an agent, as its pod has them."""
    rules: list[str] = []
    cluster_only = False
    for container in mappings((pod.object.get("spec") or {}).get("containers")):
        for word in [*(container.get("command") or ()), *(container.get("args") or ())]:
            name, equals, value = str(word).partition("=")
            if name == "--allow-destinations":
                rules += [each.strip() for each in value.split(",") if each.strip()]
            elif name == "--cluster-destinations-only":
                cluster_only = not equals or value in TRUE
    return rules, cluster_only


def _network_policy(
    case: Case, placed: Sequence[tuple[AgentFacts, PodFacts]], ends: Sequence[str], pods: Pods
) -> Link:
    """Out of the agents' pods, and into those that packets end at."""
    around, cluster = case.surroundings, case.facts.cluster
    if unread := case.unread("policies", "NetworkPolicy"):
        return Link(NETWORK, State.UNKNOWN, unread)
    own = around.of("NetworkPolicy") if around else cluster.policies if cluster else ()
    spaces = around.of("Namespace") if around else ()
    known = [*pods.by_name.values(), *(each.object for each in (cluster.pods if cluster else ()))]
    selecting: dict[str, None] = {}
    for agent, pod in placed:
        if _on_host(pod.object):
            continue  # policies are about the network of pods
        labels = labels_of(pod.object)
        for end, host, port in _places(ends):
            goal = destination_in_cluster(host, port, pods=known, namespaces=spaces)
            out = egress(own, labels, goal)
            source = destination_in_cluster(pod.ip, port, pods=[pod.object], namespaces=spaces)
            into = _into(host, source, pods)
            if into is None:
                return Link(NETWORK, State.UNKNOWN, f"at {end}: {pods.unread}")
            selecting |= dict.fromkeys((*out.policies, *into.policies))
            for ruling, way in ((out, "out to"), (into, "in at")):
                if not ruling.allowed:
                    text = f"nothing lets agent {name_of(agent)} {way} {end}: "
                    remedy = f"let it through in one of {', '.join(ruling.policies)}"
                    text = one_line(text + "; ".join(ruling.rules))
                    return Link(NETWORK, State.BROKEN, text, remedy)
    told = f"{', '.join(selecting)}: allowed" if selecting else "none holds the agents back"
    return Link(NETWORK, State.WORKS, told)


def _into(host: str, source: Destination, pods: Pods) -> Ruling | None:
    """What the policies of the pod at an address say of packets from an agent; None: not read."""
    for name, pod in pods.by_name.items():
        if (pod.get("status") or {}).get("podIP") == host and not _on_host(pod):
            policies = pods.policies.get(name.partition("/")[0])
            return None if policies is None else ingress(policies, labels_of(pod), source)
    return Ruling(allowed=True)


def _on_host(pod: Mapping[str, Any]) -> bool:
    return bool((pod.get("spec") or {}).get("hostNetwork"))


def _places(ends: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Each end with its address and port; names are left out."""
    for end in ends:
        with contextlib.suppress(AddressError):
            host, port = split_host_port(end)
            if parse_ip(host, 0) and port.isdigit():
                yield end, host, int(port)
