"""What an agent must show, and how long that lasts: the rules, without connections."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.net.authority import Authority

from konnectivity.errors import AuthenticationError
from konnectivity.kube.token_review import Account
from konnectivity.server.authentication import Authentication, ServiceAccount
from konnectivity.server.certificates import CertificateGate, compile_pattern, identities
from konnectivity.server.lifetime import LifetimeLimits, supervise
from konnectivity.tunnel.identifiers import Identifiers

AGENT = ServiceAccount("kube-system", "konnectivity-agent")


def test_the_agents_account_is_recognised() -> None:
    AGENT.check("system:serviceaccount:kube-system:konnectivity-agent")


@pytest.mark.parametrize(
    ("username", "text"),
    [
        ("", "unexpected username format"),
        ("admin", "unexpected username format"),
        ("system:serviceaccount:kube-system:a:b", "unexpected username format"),
        (
            "system:node:kube-system:konnectivity-agent",
            "username returned is not a service account",
        ),
        ("a:serviceaccount:kube-system:konnectivity-agent", "username returned is not a service"),
        (
            "system:serviceaccount:other:konnectivity-agent",
            'incoming request from "other" namespace. Expected "kube-system"',
        ),
        (
            "system:serviceaccount:kube-system:other",
            'incoming request from "other" service account. Expected "konnectivity-agent"',
        ),
    ],
)
def test_another_account_is_refused_in_upstreams_words(username: str, text: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        AGENT.check(username)
    assert str(caught.value).startswith(f"lookup failed: {text}")
    assert caught.value.outcome == "account"


# Identifiers and the node

BOUND = Authentication(bind_to_node=True)


@pytest.mark.parametrize(
    "identifiers",
    [
        "",
        "host=node-1",
        "host=NODE-1.",
        "ipv4=10.0.0.7",
        "host=node-1&ipv4=10.0.0.7",
        "ipv6=::ffff:10.0.0.7",
    ],
)
def test_identifiers_of_the_tokens_node_are_good(identifiers: str) -> None:
    claimed = Identifiers.parse(identifiers)
    BOUND.check_node(Account("u", node="Node-1"), claimed, address="10.0.0.7")


@pytest.mark.parametrize(
    ("identifiers", "claim"),
    [
        ("host=node-2", "host=node-2"),
        ("host=node-1&host=node-2", "identifiers host=node-2 are"),
        ("ipv4=10.0.0.8", "ip=10.0.0.8"),
        ("ipv6=2001:db8::1", "ip=2001:db8::1"),
        ("cidr=10.0.0.0/8", "cidr=10.0.0.0/8"),
        ("default-route=true", "default-route"),
    ],
)
def test_identifiers_of_others_are_refused_by_name(identifiers: str, claim: str) -> None:
    account = Account("u", node="node-1")
    with pytest.raises(AuthenticationError) as caught:
        BOUND.check_node(account, Identifiers.parse(identifiers), address="10.0.0.7")
    assert claim in str(caught.value)
    assert "host=node-1 and the address 10.0.0.7" in str(caught.value)
    Authentication().check_node(account, Identifiers.parse(identifiers), address="10.0.0.7")


def test_a_node_that_is_named_by_its_address_may_claim_it() -> None:
    account = Account("u", node="10.0.0.9")
    BOUND.check_node(account, Identifiers.parse("host=10.0.0.9"), address="10.0.0.7")


def test_a_token_that_is_bound_to_no_node_is_refused_with_the_remedy() -> None:
    with pytest.raises(AuthenticationError, match=r"not bound to a node.*Kubernetes 1\.32"):
        BOUND.check_node(Account("u"), Identifiers(), address="10.0.0.7")


# Certificates

CERTIFICATE = {
    "subject": (
        (("commonName", "system:konnectivity-agent"),),
        (("organizationName", "agents"),),
        (("organizationName", "edge"),),
        (("countryName", "XX"),),
    ),
    "subjectAltName": (
        ("DNS", "agent.eu.example.com"),
        ("URI", "spiffe://cluster.local/ns/kube-system/sa/konnectivity-agent"),
        ("IP Address", "10.0.0.7"),
    ),
}


def test_w47_a_certificate_says_who_its_bearer_is() -> None:
    assert list(identities(CERTIFICATE)) == [
        "CN=system:konnectivity-agent",
        "O=agents",
        "O=edge",
        "DNS=agent.eu.example.com",
        "URI=spiffe://cluster.local/ns/kube-system/sa/konnectivity-agent",
    ]
    assert list(identities({})) == []


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("CN=a", "CN=a", True),
        ("CN=a", "CN=A", False),
        ("CN=a", "O=a", False),
        ("CN=a", "CN=ab", False),
        ("CN=system:node:*", "CN=system:node:one.example/x", True),
        ("CN=*", "CN=", True),
        ("O=a?", "O=ab", False),
        ("O=a.c", "O=abc", False),
        ("DNS=*.example.com", "DNS=Agent.EXAMPLE.com", True),
        ("DNS=*.example.com", "DNS=a.b.example.com", False),
        ("DNS=*.example.com", "DNS=example.com", False),
        ("URI=spiffe://t/ns/*/sa/agent", "URI=spiffe://t/ns/kube-system/sa/agent", True),
        ("URI=spiffe://t/ns/*/sa/agent", "URI=spiffe://t/ns/x/sa/evil/sa/agent", False),
        ("URI=spiffe://t/a", "URI=spiffe://t/A", False),
        ("CN=a*", "CN=a\nb", False),
        ("CN=x=y", "CN=x=y", True),
    ],
)
def test_w47_a_pattern_matches_the_whole_of_one_kind(
    pattern: str, text: str, matches: bool
) -> None:
    assert bool(compile_pattern(pattern).fullmatch(text)) is matches


class Transport(asyncio.Transport):
    """One whose peer has shown `certificate`."""

    def __init__(self, certificate: object) -> None:
        super().__init__({"peercert": certificate})


@pytest.mark.parametrize(
    ("patterns", "admitted"),
    [
        ([], True),
        (["O=edge"], True),
        (["O=other", "URI=spiffe://cluster.local/*/*/*/*"], True),
        (["O=other", "CN=agents"], False),
    ],
)
def test_w47_one_pattern_that_matches_is_enough(patterns: Sequence[str], admitted: bool) -> None:
    refusal = CertificateGate(patterns).refusal(Transport(CERTIFICATE))
    assert (refusal == "") is admitted
    if refusal:
        assert "CN=system:konnectivity-agent, O=agents" in refusal
        assert "expected O=other or CN=agents" in refusal


@pytest.mark.parametrize("certificate", [None, {}])
def test_w47_who_shows_no_certificate_matches_nothing(certificate: object) -> None:
    assert CertificateGate(()).refusal(Transport(certificate)) == ""
    assert "certificate is for nobody" in CertificateGate(["CN=*"]).refusal(Transport(certificate))


def test_w47_what_the_standard_library_reads_in_a_certificate_is_understood(
    authority: Authority,
) -> None:
    made = authority.issue("agent.example.com", common_name="agent", organization_name="edge")
    decoded: Any = ssl._ssl._test_decode_cert(made.cert)  # type: ignore[attr-defined]
    assert {"CN=agent", "O=edge", "DNS=agent.example.com"} <= set(identities(decoded))
    assert Path(made.cert).exists()


# How long it lasts


class Stream:
    """A stream that writes down what happens to it."""

    def __init__(self, *, keeps_tunnels: bool = True, load: int = 0) -> None:
        self.keeps_tunnels = keeps_tunnels
        self.load = load
        self.events: list[str] = []

    def retire(self, cause: str) -> None:
        self.events.append(f"retire: {cause}")

    def unlist(self) -> None:
        self.events.append("unlist")

    def revoke(self, cause: str) -> None:
        self.events.append(f"revoke: {cause}")


def answers(*outcomes: str) -> tuple[Callable[[], Awaitable[None]], list[str]]:
    """A review with these outcomes in turn, good ones after that, and a list of those given."""
    left: Iterator[str] = iter(outcomes)
    given: list[str] = []

    async def review() -> None:
        given.append(outcome := next(left, ""))
        if outcome:
            raise AuthenticationError(f"it is {outcome}", outcome)

    return review, given


QUICK = LifetimeLimits(recheck=0.02, settle=0.01, confirm=0.01, succession=0.02, look=0.01)


async def life(
    stream: Stream,
    limits: LifetimeLimits,
    *,
    review: Callable[[], Awaitable[None]] | None = None,
    expires: float | None = None,
    seconds: float = 0.4,
) -> list[str]:
    """What has happened to the stream after a while."""
    living = asyncio.ensure_future(supervise(stream, limits, review=review, expires=expires))
    await asyncio.wait({living}, timeout=seconds)
    if living.done():
        await living
    living.cancel()
    await asyncio.wait({living})
    return stream.events


async def test_w46_a_stream_whose_token_stays_good_lives_on() -> None:
    review, given = answers()
    assert await life(Stream(), QUICK, review=review) == []
    assert len(given) > 3


async def test_w46_a_stream_whose_account_is_gone_ends_when_that_is_confirmed() -> None:
    review, given = answers("", "rejected", "rejected")
    assert await life(Stream(), QUICK, review=review) == ["revoke: it is rejected"]
    assert given == ["", "rejected", "rejected"]


async def test_w46_one_bad_answer_ends_nothing() -> None:
    review, given = answers("rejected", "", "rejected", "", "account")
    assert await life(Stream(), QUICK, review=review) == []
    assert len(given) > 5


async def test_w46_an_api_that_is_away_ends_nothing() -> None:
    review, given = answers(*["unavailable"] * 6)
    assert await life(Stream(), QUICK, review=review) == []
    assert len(given) > 6


async def test_w46_an_agent_with_an_expired_token_is_asked_to_come_again() -> None:
    review, _ = answers("", "expired")
    events = await life(Stream(load=3), QUICK, review=review)
    assert events == ["retire: token has expired", "unlist"]


async def test_w46_a_stock_agent_may_finish_its_tunnels_first() -> None:
    review, given = answers("expired")
    stream = Stream(keeps_tunnels=False, load=1)
    assert await life(stream, QUICK, review=review, seconds=0.2) == []
    review, given = answers("expired")
    asyncio.get_running_loop().call_later(0.1, setattr, stream, "load", 0)
    assert await life(stream, QUICK, review=review) == ["retire: token has expired", "unlist"]
    assert given == ["expired"]


async def test_w46_a_stock_agent_that_is_never_idle_has_limited_patience() -> None:
    review, _ = answers("expired")
    limits = LifetimeLimits(recheck=0.02, succession=0.02, patience=0.1, look=0.01)
    events = await life(Stream(keeps_tunnels=False, load=1), limits, review=review)
    assert events == ["retire: token has expired", "unlist"]


async def test_w46_a_token_is_reviewed_soon_after_it_expires() -> None:
    review, _ = answers("expired")
    limits = LifetimeLimits(recheck=3600.0, settle=0.02, succession=0.02)
    events = await life(Stream(), limits, review=review, expires=time.time() + 0.05)
    assert events == ["retire: token has expired", "unlist"]


async def test_a_clock_that_is_ahead_makes_no_difference_to_a_token_that_is_good() -> None:
    review, given = answers()
    limits = LifetimeLimits(recheck=0.1, settle=0.001)
    assert await life(Stream(), limits, review=review, expires=time.time() - 9999) == []
    assert 1 <= len(given) <= 4  # at the interval, not at once and again


async def test_w46_age_alone_retires_a_stream_within_a_tenth_of_its_limit() -> None:
    limits = LifetimeLimits(max_age=0.1, succession=0.02)
    assert await life(Stream(), limits, seconds=0.08) == []
    assert await life(Stream(), limits) == ["retire: maximum connection age", "unlist"]


async def test_w46_age_counts_also_where_tokens_are_reviewed() -> None:
    review, given = answers()
    limits = LifetimeLimits(recheck=0.02, max_age=0.15, succession=0.02)
    events = await life(Stream(load=1, keeps_tunnels=False), limits, review=review)
    assert events == ["retire: maximum connection age", "unlist"]
    assert given
