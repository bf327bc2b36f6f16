"""Token reviews: what is asked, what the answers mean, and how few questions there are."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.peers.kube_api import REVIEWS, Fault, KubeApi

from konnectivity.errors import AuthenticationError
from konnectivity.kube.client import connect
from konnectivity.kube.token_review import NODE, POD, ReviewLimits, TokenReviews, expiry

AUDIENCE = "system:konnectivity-server"
USER = "system:serviceaccount:kube-system:konnectivity-agent"
GOOD = {"authenticated": True, "audiences": [AUDIENCE], "user": {"username": USER}}


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as started:
        started.review = lambda spec: GOOD
        yield started


Start = Callable[..., TokenReviews]


@pytest.fixture
def start(api: KubeApi, folder: Path, exits: AsyncExitStack) -> Start:
    """Reviews with these limits, over a client that does not hold them back."""

    def make(**limits: Any) -> TokenReviews:
        client = connect(str(api.kubeconfig(folder)), qps=1000, burst=1000)
        reviews = TokenReviews(client, audience=AUDIENCE, limits=ReviewLimits(**limits))
        exits.push_async_callback(reviews.close)
        return reviews

    return make


def jwt(**claims: object) -> str:
    parts = ({"alg": "none"}, claims)
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    ) + ".c2ln"  # fmt: skip


async def refusal(review: Awaitable[object]) -> AuthenticationError:
    with pytest.raises(AuthenticationError) as caught:
        await review
    return caught.value


@pytest.mark.both_loops
async def test_the_api_is_asked_about_the_token_and_the_audience(
    api: KubeApi, start: Start
) -> None:
    extra = {NODE: ["node-1"], POD: ["agent-x"], "other": ["y"]}
    api.review = lambda spec: {**GOOD, "user": {"username": USER, "extra": extra}}
    account = await start().review("secret")
    assert (account.username, account.node, account.pod) == (USER, "node-1", "agent-x")
    (request,) = api.requests
    assert (request.method, request.path) == ("POST", REVIEWS)
    assert request.body["spec"] == {"token": "secret", "audiences": [AUDIENCE]}
    assert request.body["kind"] == "TokenReview"


@pytest.mark.parametrize(
    ("status", "text", "outcome"),
    [
        ({"error": "bad things"}, "lookup failed: bad things", "rejected"),
        ({"authenticated": False}, "lookup failed: service account jwt not valid", "rejected"),
        ({}, "lookup failed: service account jwt not valid", "rejected"),
        ({"authenticated": True}, "lookup failed: service account jwt not valid", "rejected"),
        ({**GOOD, "error": "and yet"}, "lookup failed: and yet", "rejected"),
        ({"error": "[token has expired]"}, "lookup failed: [token has expired]", "expired"),
        (None, "Failed to authenticate request. err:the Kubernetes API answered", "unavailable"),
        ({"authenticated": "yes"}, "Failed to authenticate request. err:Expected", "unavailable"),
    ],
)
async def test_a_token_that_the_api_does_not_vouch_for_is_refused_in_upstreams_words(
    status: Any, text: str, outcome: str, api: KubeApi, start: Start
) -> None:
    api.review = lambda spec: status
    error = await refusal(start().review("t"))
    assert str(error).startswith(text)
    assert error.outcome == outcome


@pytest.mark.parametrize("audiences", [["https://kubernetes.default.svc"], [], None])
async def test_w45_a_token_for_another_audience_is_refused(
    audiences: list[str] | None, api: KubeApi, start: Start
) -> None:
    api.review = lambda spec: {**GOOD, "audiences": audiences}
    error = await refusal(start().review("t"))
    assert f'token is not for audience "{AUDIENCE}"' in str(error)
    assert str(audiences or []).replace("'", '"') in str(error)
    assert error.outcome == "audience"


async def test_w45_one_audience_of_several_is_enough(api: KubeApi, start: Start) -> None:
    api.review = lambda spec: {**GOOD, "audiences": ["another", AUDIENCE]}
    assert (await start().review("t")).username == USER


async def test_a_rejected_token_whose_time_is_over_has_expired(api: KubeApi, start: Start) -> None:
    api.review = lambda spec: {"authenticated": False}
    reviews = start()
    assert (await refusal(reviews.review(jwt(exp=time.time() - 1)))).outcome == "expired"
    assert (await refusal(reviews.review(jwt(exp=time.time() + 99)))).outcome == "rejected"


async def test_w52_an_answer_is_remembered_for_a_while_and_then_asked_for_again(
    api: KubeApi, start: Start
) -> None:
    reviews = start(keep=0.2)
    for _ in range(5):
        await reviews.review("t")
    assert len(api.requests) == 1
    await reviews.review("other")
    await reviews.review("t", anew=True)
    assert len(api.requests) == 3
    await asyncio.sleep(0.25)
    await reviews.review("t")
    assert len(api.requests) == 4


async def test_w52_a_refusal_is_remembered_for_less_long(api: KubeApi, start: Start) -> None:
    api.review = lambda spec: {"authenticated": False}
    reviews = start(keep=60.0, keep_refused=0.2)
    first = await refusal(reviews.review("t"))
    second = await refusal(reviews.review("t"))
    assert (str(second), second.outcome) == (str(first), first.outcome)
    assert len(api.requests) == 1
    await asyncio.sleep(0.25)
    api.review = lambda spec: GOOD
    assert (await reviews.review("t")).username == USER


async def test_nothing_is_remembered_if_that_is_asked_for(api: KubeApi, start: Start) -> None:
    reviews = start(keep=0.0)
    await reviews.review("t")
    await reviews.review("t")
    api.review = lambda spec: {"authenticated": False}
    await refusal(reviews.review("t"))
    await refusal(reviews.review("t"))
    assert len(api.requests) == 4


async def test_what_is_remembered_is_bounded_and_holds_no_token(api: KubeApi, start: Start) -> None:
    reviews = start(entries=3)
    for number in range(5):
        await reviews.review(f"secret-{number}")
    await reviews.review("secret-4")
    assert len(api.requests) == 5
    await reviews.review("secret-0")
    assert len(api.requests) == 6
    assert "secret" not in repr(vars(reviews))


async def test_w58_many_who_ask_about_one_token_at_once_cost_one_question(
    api: KubeApi, start: Start
) -> None:
    api.faults.append(Fault(delay=0.1))
    reviews = start()
    impatient = asyncio.ensure_future(reviews.review("t"))
    asking = [asyncio.ensure_future(reviews.review("t")) for _ in range(50)]
    await asyncio.sleep(0.02)
    impatient.cancel()  # it does not take the answer from the others
    assert {(await each).username for each in asking} == {USER}
    assert len(api.requests) == 1


async def test_w52_only_so_many_questions_are_open_at_once(api: KubeApi, start: Start) -> None:
    open_, most = 0, 0

    async def review(spec: dict[str, Any]) -> dict[str, Any]:
        nonlocal open_, most
        open_ += 1
        most = max(most, open_)
        await asyncio.sleep(0.01)
        open_ -= 1
        return GOOD

    api.review = review
    reviews = start(at_once=4)
    await asyncio.gather(*(reviews.review(f"t{number}") for number in range(40)))
    assert most == 4


async def test_w52_a_review_that_takes_too_long_fails_and_so_does_one_that_waits_behind_it(
    api: KubeApi, start: Start
) -> None:
    api.faults.append(Fault(hang=True, times=1))
    reviews = start(timeout=0.2, at_once=1)
    began = time.monotonic()
    errors = await asyncio.gather(refusal(reviews.review("a")), refusal(reviews.review("b")))
    assert time.monotonic() - began < 1.0
    for error in errors:
        text = "Failed to authenticate request. err:no answer from the Kubernetes API within 0.2 s"
        assert (str(error), error.outcome) == (text, "unavailable")
    assert (await reviews.review("a")).username == USER


async def test_a_server_that_may_not_review_tokens_is_told_which_right_it_lacks(
    api: KubeApi, start: Start
) -> None:
    api.faults.append(Fault(status=403, message="tokenreviews is forbidden", times=1))
    reviews = start()
    error = await refusal(reviews.review("t"))
    assert "err:tokenreviews is forbidden (HTTP 403 Forbidden)" in str(error)
    assert "system:auth-delegator" in str(error)
    assert error.outcome == "unavailable"
    assert (await reviews.review("t")).username == USER  # time healed it


async def test_an_api_that_is_away_is_asked_again_when_it_is_back(
    api: KubeApi, start: Start
) -> None:
    reviews = start()
    await api.stop()
    error = await refusal(reviews.review("t"))
    assert error.outcome == "unavailable"
    assert api.url in str(error)
    await api.start()
    assert (await reviews.review("t")).username == USER


async def test_closing_ends_questions_that_are_open(api: KubeApi, start: Start) -> None:
    api.faults.append(Fault(hang=True))
    reviews = start()
    asking = asyncio.ensure_future(reviews.review("t"))
    await asyncio.sleep(0.05)
    await reviews.close()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (jwt(exp=1_700_000_000), 1_700_000_000.0),
        (jwt(exp="12"), 12.0),
        (jwt(), None),
        (jwt(exp=None), None),
        (jwt(exp=1e999), None),
        ("opaque", None),
        ("a.b.c", None),
        ("a.!!!.c", None),
        ("", None),
        (f"a.{base64.urlsafe_b64encode(b'[' * 30000).decode()}.c", None),
        (f"a.{base64.urlsafe_b64encode(b'[1]').decode()}.c", None),
    ],
)
def test_a_tokens_expiry_is_read_without_trust(token: str, expected: float | None) -> None:
    assert expiry(token) == expected
