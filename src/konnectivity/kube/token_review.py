"""Asks the Kubernetes API whose token it is: TokenReview, with bounds.

Answers are kept for a short while under the token's SHA-256, questions about one token are asked
once, and only so many at a time: a fleet that comes back after a restart of the control plane is
let in as fast as the API answers, and no faster (W52, W58).
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from konnectivity.errors import AuthenticationError
from konnectivity.kube.client import describe, failures

if TYPE_CHECKING:
    from lightkube import AsyncClient
    from lightkube.models.authentication_v1 import TokenReviewStatus

NODE: Final = "authentication.kubernetes.io/node-name"
POD: Final = "authentication.kubernetes.io/pod-name"
"""What a review says of a bound token. Source: kubernetes `pkg/serviceaccount/claims.go`."""
RIGHT: Final = "create on tokenreviews.authentication.k8s.io, ClusterRole system:auth-delegator"


@dataclass(frozen=True, slots=True)
class ReviewLimits:
    """What reviews may cost. Times in seconds."""

    timeout: float = 10.0
    """For one answer, from the question to the word of the API, waiting in turn included."""
    keep: float = 10.0
    """How long a token that was found good is not asked about again; 0: not at all."""
    keep_refused: float = 2.0
    """The same for a bad one, at most: what was created a moment ago may be unknown yet."""
    entries: int = 4096
    """Answers kept; the oldest goes first."""
    at_once: int = 16
    """Questions that the API has not answered."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a token belongs to. `node` and `pod` are what it is bound to, or empty."""

    username: str
    node: str = ""
    pod: str = ""


class TokenReviews:
    """Reviews tokens for one audience. `close` it."""

    def __init__(
        self, client: AsyncClient, *, audience: str, limits: ReviewLimits | None = None
    ) -> None:
        # Now, not when the first agent waits: it takes a moment.
        from lightkube.resources import authentication_v1  # noqa: F401

        self._client = client
        self._audience = audience
        self._limits = limits or ReviewLimits()
        self._turns = asyncio.Semaphore(self._limits.at_once)
        self._asking: dict[bytes, asyncio.Task[Account]] = {}
        self._known: dict[bytes, tuple[float, Account | AuthenticationError]] = {}
        """Until when an answer holds, and the answer; oldest first."""

    async def review(self, token: str, *, anew: bool = False) -> Account:
        """Whose `token` it is; `anew`: whatever was said before.

        Raises:
            AuthenticationError: the API says nobody's, in the words of upstream's server; or, with
                the outcome `unavailable`, it does not say.
        """
        key = sha256(token.encode()).digest()
        until, known = self._known.get(key, (0.0, None))
        if known is not None and not anew and until > asyncio.get_running_loop().time():
            if isinstance(known, AuthenticationError):
                raise AuthenticationError(str(known), known.outcome)
            return known
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, token))
            task.add_done_callback(lambda done: self._answered(key, done))
        # Others may wait for the same answer: whoever leaves does not take it from them.
        return await asyncio.shield(task)

    async def _ask(self, key: bytes, token: str) -> Account:
        limits = self._limits
        try:
            async with asyncio.timeout(limits.timeout), self._turns:
                status = await self._status(token)
        except TimeoutError:
            text = f"no answer from the Kubernetes API within {limits.timeout:g} s"
            raise _unavailable(text) from None
        except failures() as error:
            hint = f"; the server's own user needs {RIGHT}" if _is_forbidden(error) else ""
            raise _unavailable(f"{describe(error)}{hint}") from error
        try:
            account = self._judge(status, token)
        except AuthenticationError as refusal:
            self._keep(key, refusal, min(limits.keep, limits.keep_refused))
            raise
        self._keep(key, account, limits.keep)
        return account

    async def _status(self, token: str) -> TokenReviewStatus | None:
        from lightkube.models.authentication_v1 import TokenReviewSpec
        from lightkube.resources.authentication_v1 import TokenReview

        spec = TokenReviewSpec(token=token, audiences=[self._audience])
        answer = await self._client.create(TokenReview(spec=spec))
        return answer.status

    def _judge(self, status: TokenReviewStatus | None, token: str) -> Account:
        """Source: upstream `pkg/server/server.go`, `validateAuthToken`; the audience is ours."""
        if status is None:
            raise _unavailable("the Kubernetes API answered without a status")
        if status.error or not status.authenticated or status.user is None:
            text = status.error or "service account jwt not valid"
            outcome = "expired" if "expired" in text or _has_expired(token) else "rejected"
            raise AuthenticationError(f"lookup failed: {text}", outcome)
        audiences = status.audiences or []
        if self._audience not in audiences:
            raise AuthenticationError(
                f'lookup failed: token is not for audience "{self._audience}": '
                f"the Kubernetes API vouches for {json.dumps(audiences)}",
                "audience",
            )
        extra = status.user.extra or {}
        name = status.user.username or ""
        return Account(name, node=_only(extra, NODE), pod=_only(extra, POD))

    def _keep(self, key: bytes, answer: Account | AuthenticationError, seconds: float) -> None:
        self._known.pop(key, None)
        if seconds > 0:
            self._known[key] = (asyncio.get_running_loop().time() + seconds, answer)
        while len(self._known) > self._limits.entries:
            del self._known[next(iter(self._known))]

    def _answered(self, key: bytes, task: asyncio.Task[Account]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # those who asked have it, if they are still there

    async def close(self) -> None:
        """End the questions that are open, and the client."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._client.close()


def expiry(token: str) -> float | None:
    """When a JWT says that it expires, Unix seconds. Nothing is verified: ask this of good ones."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        expires = float(claims["exp"])
    except (ValueError, IndexError, KeyError, TypeError, RecursionError):
        return None
    return expires if isfinite(expires) else None


def _has_expired(token: str) -> bool:
    expires = expiry(token)
    return expires is not None and expires <= time.time()


def _unavailable(text: str) -> AuthenticationError:
    return AuthenticationError(f"Failed to authenticate request. err:{text}", "unavailable")


def _is_forbidden(error: BaseException) -> bool:
    import httpx2

    return isinstance(error, httpx2.HTTPStatusError) and error.response.status_code == 403


def _only(extra: Mapping[str, Any], key: str) -> str:
    """The one value of a key; none of several counts, for they contradict each other."""
    values = extra.get(key)
    if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str):
        return values[0]
    return ""
