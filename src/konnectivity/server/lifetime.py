"""How long an agent's stream lives on what it showed when it came (W46).

Tokens are asked about again at intervals: a stream whose account is gone is ended. One whose token
has merely expired, or that has reached `--max-agent-connection-age`, is *retired*: it is asked to
come again on a new connection, keeps its tunnels, and gets new ones only until that is there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from konnectivity.errors import AuthenticationError
from konnectivity.observe import logs

log = logs.get(__name__)

JITTER: Final = 0.1
"""Part by which intervals and ages vary, so that a fleet does not come back at one moment."""


@dataclass(frozen=True, slots=True)
class LifetimeLimits:
    """Times in seconds."""

    recheck: float = 0.0
    """Between reviews of the token; 0: never."""
    max_age: float = 0.0
    """Of a stream; 0: without limit."""
    settle: float = 15.0
    """After a token's expiry until it is reviewed: the API remembers its own answers for 10 s."""
    confirm: float = 15.0
    """Until a bad answer is asked for again, at most: the API may have had a bad moment."""
    succession: float = 30.0
    """For which a retired stream still gets dials that no other agent can take."""
    patience: float = 24 * 3600.0
    """For which a stock agent with an expired token may go on until it has no tunnels: when it is
    asked to come again, it drops them."""
    look: float = 1.0
    """Between looks at whether it has."""


class Stream(Protocol):
    """An agent's stream, as far as its end is concerned."""

    keeps_tunnels: bool
    """Whether the agent goes on with its tunnels when it is asked to come again."""

    @property
    def load(self) -> int:
        """Tunnels and dials."""

    def retire(self, cause: str) -> None:
        """Ask the agent to come again on another connection."""

    def unlist(self) -> None:
        """Give it no more dials."""

    def revoke(self, cause: str) -> None:
        """End it with all its tunnels."""


async def supervise(
    stream: Stream,
    limits: LifetimeLimits,
    *,
    review: Callable[[], Awaitable[object]] | None,
    expires: float | None = None,
) -> None:
    """Follow `stream` until its time has come; whoever ends it before cancels this.

    `review` asks about its token, which `expires` then (Unix seconds); None: it has none.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + _varied(limits.max_age) if limits.max_age else inf
    while True:
        pause = _until_review(limits, expires) if review is not None else inf
        await asyncio.sleep(min(pause, end - clock()))
        if review is None or clock() >= end:
            cause = "maximum connection age"
            break
        refusal = await _refusal(review, limits)
        if refusal is None:
            continue
        if refusal.outcome != "expired":
            stream.revoke(str(refusal))
            return
        cause = "token has expired"
        if not stream.keeps_tunnels:
            await _idle(stream, limits.look, min(clock() + limits.patience, end))
        break
    stream.retire(cause)
    await asyncio.sleep(limits.succession)
    stream.unlist()


async def _refusal(
    review: Callable[[], Awaitable[object]], limits: LifetimeLimits
) -> AuthenticationError | None:
    """Why a token is not good any more. None: it is, or there is no telling now."""
    for confirmed in (False, True):
        try:
            await review()
        except AuthenticationError as error:
            if error.outcome == "unavailable":
                log.summarised("recheck", "Cannot check an agent's token again", cause=str(error))
                return None
            if confirmed or error.outcome == "expired":
                return error
        else:
            return None
        await asyncio.sleep(min(limits.confirm, limits.recheck))
    return None


def _until_review(limits: LifetimeLimits, expires: float | None) -> float:
    """Seconds; for one that is about to expire not before it has.

    One that should have expired long ago and is still good says that our clock is wrong.
    """
    pause = _varied(limits.recheck)
    left = expires - time.time() if expires is not None else 0.0
    if left > 0:
        pause = min(pause, left + limits.settle * random.uniform(1, 3))  # noqa: S311 - jitter
    return pause


async def _idle(stream: Stream, look: float, deadline: float) -> None:
    clock = asyncio.get_running_loop().time
    while stream.load and clock() < deadline:  # noqa: ASYNC110 - the count has no event
        await asyncio.sleep(look)


def _varied(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - jitter
