"""A `Connect` call that waits for the Kubernetes API to say whose token it bears.

Nothing of the agent is registered meanwhile, what it sends is kept up to a limit, and if it leaves
nobody asks on for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from konnectivity.errors import AuthenticationError, PacketError, RpcError
from konnectivity.net.grpc import Call, CallHandler
from konnectivity.observe import logs
from konnectivity.wire import grpc
from konnectivity.wire.events import Headers
from konnectivity.wire.grpc import Oversized

if TYPE_CHECKING:
    from konnectivity.kube.token_review import Account

log = logs.get(__name__)

EARLY_LIMIT: Final = 64 << 10
"""Bytes an agent may send before it is admitted. Stock agents send none: they wait."""
WAITING: Final = 1024
"""Calls that wait at once; further ones are refused, and agents come again."""


class Admission:
    """The handler of one waiting call, until `admit` gives it the one that stays.

    `admit` or `refuse` is called, unless the agent leaves before. Both `review` and `admit` raise
    `AuthenticationError` for an agent that is not admitted.
    """

    def __init__(
        self,
        call: Call,
        *,
        review: Callable[[], Awaitable[Account]],
        waiting: set[Admission],
        admit: Callable[[Account], CallHandler],
        refuse: Callable[[AuthenticationError], None],
    ) -> None:
        self._call = call
        self._admit = admit
        self._refuse = refuse
        self._early: list[bytes] = []
        self._size = 0
        self._said_goodbye = False
        self._waiting = waiting
        waiting.add(self)
        self._task = asyncio.create_task(self._decide(review))

    async def _decide(self, review: Callable[[], Awaitable[Account]]) -> None:
        try:
            handler = self._admit(await review())
        except AuthenticationError as error:
            self._refuse(error)
            return
        except Exception:
            log.exception("Cannot decide on an agent", address=self._call.peer)
            self._refuse(AuthenticationError("the server failed to decide", "unavailable"))
            return
        finally:
            self._waiting.discard(self)
        self._call.handler = handler
        self._replay(handler)

    def _replay(self, handler: CallHandler) -> None:
        try:
            for message in self._early:
                handler.message(memoryview(message))
        except (RpcError, PacketError) as error:
            self._call.abandon(grpc.INTERNAL, str(error))
        else:
            if self._said_goodbye:
                handler.half_closed()

    # CallHandler (net/grpc.py)

    def headers(self, headers: Headers) -> None:
        """Not for servers."""

    def message(self, message: memoryview | Oversized) -> None:
        """Keep a copy for later.

        Raises:
            RpcError: it is too much.
        """
        size = message.size if isinstance(message, Oversized) else len(message)
        self._size += size + grpc.PREFIX_SIZE  # empty ones are not for nothing
        if self._size > EARLY_LIMIT or isinstance(message, Oversized):
            raise RpcError(
                grpc.RESOURCE_EXHAUSTED, f"more than {EARLY_LIMIT} bytes sent before the answer"
            )
        self._early.append(bytes(message))

    def writable(self) -> None:
        """Nothing was written."""

    def half_closed(self) -> None:
        """The agent says goodbye; it is answered in turn."""
        self._said_goodbye = True

    def ended(self, error: RpcError | None) -> None:
        """The agent left, or was refused."""
        self._waiting.discard(self)
        self._task.cancel()
