"""From kube-apiserver to the callee: egress selection, servers, agents, policies, dial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from konnectivity.diagnose.case import Case, TargetDial, name_of
from konnectivity.diagnose.checks.egress_selector import PROTOCOLS, faults
from konnectivity.diagnose.explain.callee import CONTROL_PLANE, Callee
from konnectivity.diagnose.explain.chain import DIAL, Chain, Link, State
from konnectivity.diagnose.explain.choice import Choice, choose
from konnectivity.diagnose.explain.policies import obstacles
from konnectivity.diagnose.explain.service import Pods
from konnectivity.diagnose.facts import AgentFacts
from konnectivity.diagnose.surroundings import mappings
from konnectivity.gotext import one_line

SHOWN: Final = 3
"""Agents that are named."""
EGRESS: Final = "egress selection"


def chain(case: Case, callee: Callee, pods: Pods, dials: Sequence[TargetDial]) -> Chain:
    """All links up to the broken one; policies that a dial has passed do not break it."""
    links: list[Link] = []
    for group in _groups(case, callee, pods, dials):
        links += group
        if any(each.state is State.BROKEN for each in group):
            break
    return Chain(callee.title, tuple(links))


def _groups(
    case: Case, callee: Callee, pods: Pods, dials: Sequence[TargetDial]
) -> Iterator[list[Link]]:
    yield list(callee.links)
    if not callee.addresses:
        return
    egress = _egress(case, callee.selection)
    yield [egress]
    if callee.selection == CONTROL_PLANE and egress.state is not State.WORKS:
        return
    yield list(_servers(case))
    yield list(_agents(case, callee))
    yield [_passed(each, dials) for each in _policies(case, callee, pods)]
    yield list(_failures(case, callee))
    yield list(_dials(callee, dials))


def _egress(case: Case, selection: str) -> Link:
    """Which way kube-apiserver takes, by its file."""
    egress = case.egress
    if egress is None:
        text = f"`{selection}` is taken; which way that goes, --egress-config would tell"
        if selection != CONTROL_PLANE:
            return Link(EGRESS, State.NOTE, text)
        text = (
            "URLs go by `controlplane`, in most set-ups directly and not through the tunnel; "
            "--egress-config would tell"
        )
        return Link(EGRESS, State.UNKNOWN, text)
    if selection == CONTROL_PLANE:
        protocol = _protocol(egress.content, selection)
        if PROTOCOLS.get(protocol):
            return Link(EGRESS, State.WORKS, f"`{selection}` of {egress.path}: {protocol}")
        text = f"`{selection}` of {egress.path} is direct: this call does not take the tunnel"
        return Link(EGRESS, State.UNKNOWN, text, "try the URL from the control plane's hosts")
    for text, remedy in faults(egress, case):
        return Link(EGRESS, State.BROKEN, text, remedy)
    return Link(EGRESS, State.WORKS, f"`{selection}` of {egress.path}")


def _protocol(content: Any, selection: str) -> str:
    selections = content.get("egressSelections") if isinstance(content, Mapping) else None
    for each in mappings(selections):
        if each.get("name") == selection:
            return str((each.get("connection") or {}).get("proxyProtocol"))
    return "Direct"


def _servers(case: Case) -> Iterator[Link]:
    """Each server; which one it is depends on the kube-apiserver that calls."""
    for server in case.facts.servers:
        status = server.status
        if status is None:
            why = server.error or "a stock server, which tells nothing of its agents"
            yield Link("server", State.UNKNOWN, f"{server.name}: {why}")
            continue
        text = f"{server.name}: {len(status.agents)} agents, {status.tunnel_counts.open} tunnels"
        if status.agents:
            yield Link("server", State.WORKS, text)
        else:
            yield Link("server", State.BROKEN, text, "konnectivity doctor says why none is there")
    if not case.facts.servers:
        text = case.server_silence() or "none was asked, and none answers on this machine"
        yield Link("server", State.UNKNOWN, text, "name them by --server")


def _agents(case: Case, callee: Callee) -> Iterator[Link]:
    names = {each.id: name_of(each) for each in case.agents}
    for server, status in case.statuses:
        for address in callee.addresses:
            choice = choose(status, address)
            yield _agent(server.name, address, choice, names)


def _agent(server: str, address: str, choice: Choice, names: Mapping[str, str]) -> Link:
    before = f"; {', '.join(choice.passed)} {'has' if len(choice.passed) == 1 else 'have'} none"
    if not choice.agents:
        text = f"{server}: no agent for {address}{before if choice.passed else ''}"
        remedy = "docs/how-to/strategies.md: what --agent-identifiers each strategy asks for"
        return Link("agent", State.BROKEN, one_line(text), remedy)
    shown = [names.get(each) or name_of(AgentFacts(each)) for each in choice.agents[:SHOWN]]
    more = f" and {len(choice.agents) - SHOWN} more" if len(choice.agents) > SHOWN else ""
    one = "one of " if len(choice.agents) > 1 else ""
    how = f"by {choice.strategy}: {choice.why}{before if choice.passed else ''}"
    return Link("agent", State.WORKS, one_line(f"{server}: {one}{', '.join(shown)}{more}, {how}"))


def _policies(case: Case, callee: Callee, pods: Pods) -> Iterator[Link]:
    agents = [
        agent
        for _, status in case.statuses
        for address in callee.addresses
        for agent in choose(status, address).agents
    ]
    if agents and case.surroundings is not None:
        yield from obstacles(
            case,
            list(dict.fromkeys(agents)),
            addresses=callee.addresses,
            ends=callee.ends or callee.addresses,
            pods=pods,
        )


def _passed(link: Link, dials: Sequence[TargetDial]) -> Link:
    """A policy that did not keep the dial from its end."""
    if link.state is not State.BROKEN or not dials or any(each.error for each in dials):
        return link
    text = f"{link.text}; and yet the dial came through: another agent, or it is not enforced"
    return Link(link.title, State.NOTE, text, link.remedy)


def _dials(callee: Callee, dials: Sequence[TargetDial]) -> Iterator[Link]:
    if not dials:
        text = "not tried: run this beside a server, with --frontend"
        yield Link(DIAL, State.NOTE, text)
    for dial in dials:
        if not dial.error:
            checked = "and its certificate is valid" if callee.ca else "and TLS is spoken"
            text = f"{dial.address} answers after {dial.seconds * 1e3:.0f} ms, {checked}"
            yield Link(DIAL, State.WORKS, text)
        elif dial.stage == "frontend":
            text = f"the server's frontend does not answer: {dial.error}"
            remedy = "correct --frontend and --frontend-mode, or start the server"
            yield Link(DIAL, State.UNKNOWN, text, remedy)
        else:
            what = "TLS with" if dial.stage == "tls" else "a connection to"
            text = f"{what} {dial.address} fails: {dial.error}"
            yield Link(DIAL, State.BROKEN, text, _remedy(callee, dial))


def _remedy(callee: Callee, dial: TargetDial) -> str:
    if dial.stage == "tls":
        if callee.ca:
            return f"its certificate must be for {callee.server_name}, by a CA of the caBundle"
        return f"something else listens at {dial.address}, or it closes what it does not know"
    if callee.kind == "kubelet":
        return f"allow TCP to {dial.address} from the agents; on the node: systemctl status kubelet"
    return "network policies of the backend's namespace; its port and targetPort; kube-proxy"


def _failures(case: Case, callee: Callee) -> Iterator[Link]:
    """What servers remember of such calls."""
    for server, status in case.statuses:
        found = [
            each for each in status.dials.recent_failures if each.destination in callee.addresses
        ]
        if found:
            last, ago = found[0], max(0.0, case.now - found[0].time)
            text = (
                f"{server.name} remembers {len(found)}, the last {ago:.0f} s ago by agent "
                f"{last.peer or '(none)'}: {last.error}"
            )
            yield Link("failed calls", State.NOTE, one_line(text))
