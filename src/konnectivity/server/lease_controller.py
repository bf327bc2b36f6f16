"""Publishes this server's lease, and deletes those of servers that are gone.

The lease is acquired, renewed and deleted at the stop as upstream does, and so are expired leases
of others. Failures are tried again for ever and logged when they begin; the server serves on.
What the leases say about the other servers is told to agents of ours (wire/announcement.py).

Source: upstream `pkg/server/leases/garbage_collection_controller.go`, client-go's lease controller
(`component-helpers/apimachinery/lease`) with the times of `cmd/server/app/server.go`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from konnectivity.kube.client import connect, describe, failures
from konnectivity.kube.collection import LEASES, Collection, Object, status_of, timed
from konnectivity.kube.leases import (
    OddLeases,
    State,
    access_rule,
    judge,
    lease_name,
    name_of,
    parse_labels,
    renewed,
    selector,
    server_of,
)
from konnectivity.net.backoff import Backoff, lengthened
from konnectivity.observe import logs
from konnectivity.server.counters import ServerCounters
from konnectivity.server.options import ServerOptions
from konnectivity.wire import announcement

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

VERBS: Final = ("get", "list", "create", "update", "delete")
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
CONFLICT: Final = 409


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Times in seconds; upstream's."""

    renewal: float = 15.0
    jitter: float = 0.04
    """Of `renewal`, at most."""
    attempts: int = 5
    """To renew at once, before the lease is acquired anew."""
    first_wait: float = 0.2
    longest_wait: float = 7.0
    collection: float = 15.0


class LeaseController:
    """The lease of one server, and its way to the API, which `async with` closes.

    `start` once agents can come. `leave` deletes the lease, and is for the beginning of a stop:
    agents then look elsewhere (W38).
    """

    def __init__(
        self,
        client: AsyncClient,
        options: ServerOptions,
        counters: ServerCounters,
        *,
        times: LeaseTimes | None = None,
    ) -> None:
        self.servers: dict[str, str] = {}
        """The agent address, which may be empty, of each server with a valid lease, by id."""
        self._client = client
        self._leases = Collection(client, LEASES.format(namespace=options.lease_namespace))
        self._namespace = options.lease_namespace
        self._server_id = options.server_id
        self._address = options.advertise_agent_address
        self._labels = parse_labels(options.lease_label)
        self._counters = counters
        self._times = times or LeaseTimes()
        self._latest: Object | None = None
        self._odd = OddLeases()
        self._troubles: dict[str, str] = {}
        """What goes wrong at present, by what was tried."""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    def start(self) -> None:
        """Acquire the lease, and look at those of others."""
        self._tasks = [asyncio.create_task(work()) for work in (self._hold, self._collect)]

    async def __aexit__(self, *_: object) -> None:
        await self._stop()
        await self._client.close()

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def leave(self) -> None:
        """Delete the own lease and be done; the caller keeps a time limit."""
        await self._stop()
        if await self._try("delete the lease", self._delete_own()):
            log.info("Lease deleted", lease=lease_name(self._server_id))

    async def _delete_own(self) -> None:
        try:
            await self._leases.delete(lease_name(self._server_id))
        except failures() as error:
            if _code(error) != NOT_FOUND:
                raise

    def announce(self) -> list[tuple[str, str]]:
        """Response metadata of `Connect`: all servers with a valid lease, this one among them."""
        text = announcement.encode(self.servers | {self._server_id: self._address})
        return [(announcement.KEY, text)] if text else []

    # The own lease

    async def _hold(self) -> None:
        while True:
            if not await self._renew():
                await self._acquire()
            await asyncio.sleep(lengthened(self._times.renewal, self._times.jitter))

    async def _renew(self) -> bool:
        """Whether the lease, as it was known last, could be written within some attempts."""
        for _ in range(self._times.attempts):
            if self._latest is None:
                return False
            if await self._try("renew the lease", self._overwrite(self._latest)):
                return self._latest is not None
        return False

    async def _overwrite(self, known: Object) -> None:
        """Write over `known`, or over what somebody else made of it."""
        name = lease_name(self._server_id)
        try:
            self._latest = await self._leases.replace(self._renewed(known))
        except failures() as error:
            if _code(error) == CONFLICT:
                found = await self._leases.get(name)
                self._latest = await self._leases.replace(self._renewed(found))
            elif _code(error) == NOT_FOUND:
                self._latest = None
                log.warning(
                    "Somebody deleted the lease of this server, which runs; servers do so when "
                    "their clocks disagree",
                    lease=name,
                )
            else:
                raise

    async def _acquire(self) -> None:
        """Take the lease, however long that takes."""
        waits = Backoff(self._times.first_wait, self._times.longest_wait, jitter=0.0)
        while True:
            if await self._try("acquire the lease", self._write()):
                log.info("Lease acquired", lease=lease_name(self._server_id))
                return
            await asyncio.sleep(waits.next())

    async def _write(self) -> None:
        try:
            found = await self._leases.get(lease_name(self._server_id))
        except failures() as error:
            if _code(error) != NOT_FOUND:
                raise
            self._latest = await self._leases.create(self._renewed(None))
        else:
            self._latest = await self._leases.replace(self._renewed(found))

    def _renewed(self, item: Object | None) -> Object:
        return renewed(
            item,
            server_id=self._server_id,
            labels=self._labels,
            address=self._address,
            now=time.time(),
        )

    # Those of others

    async def _collect(self) -> None:
        while True:
            await self._try("list leases", self._look_around())
            await asyncio.sleep(self._times.collection)

    async def _look_around(self) -> None:
        """Note who is there, and delete the leases of those that are not."""
        items, _ = await timed(
            self._leases.list(selector(self._labels)), self._counters.lease_lists
        )
        now = time.time()
        odd: dict[str, str] = {}
        servers: dict[str, str] = {}
        expired: list[Object] = []
        for item in items:
            judgement = judge(item, now)
            if judgement.state is State.VALID:
                server_id, address = server_of(item)
                servers[server_id] = address
            elif judgement.state is State.EXPIRED:
                expired.append(item)
            else:
                odd[name_of(item)] = judgement.reason
        servers.pop("", None)
        self.servers = servers
        for name, reason in self._odd.news(odd):
            log.warning("A lease does not count", lease=name, reason=reason)
        for item in expired:
            await self._try("delete an expired lease", self._cull(item))

    async def _cull(self, item: Object) -> None:
        """Delete an expired lease, unless it was renewed since."""
        name, version = name_of(item), str(item["metadata"].get("resourceVersion") or "")
        if name == lease_name(self._server_id):
            return  # it is being renewed
        try:
            await timed(self._leases.delete(name, version=version), self._counters.lease_deletes)
        except failures() as error:
            if _code(error) not in (NOT_FOUND, CONFLICT):
                raise
        else:
            self._counters.leases_culled += 1
            log.info("Deleted an expired lease", lease=name)

    # What goes wrong

    async def _try(self, what: str, request: Awaitable[None]) -> bool:
        """Whether a request worked; if not it was logged."""
        try:
            await request
        except failures() as error:
            self._complain(what, error)
            return False
        if self._troubles.pop(what, None):
            log.info(f"Able to {what} again")
        return True

    def _complain(self, what: str, error: BaseException) -> None:
        """One line for each new trouble, however often it is met; with the remedy for a 403."""
        text = describe(error)
        if self._troubles.get(what) == text:
            return
        self._troubles[what] = text
        forbidden = _code(error) == FORBIDDEN
        hint = {"remedy": access_rule(VERBS, self._namespace)} if forbidden else {}
        log.warning(f"Cannot {what}", error=text, **hint)


def _code(error: BaseException) -> int:
    """The HTTP status, 0 if the API did not answer."""
    status = status_of(error)
    return status[0] if status else 0


async def open_controller(options: ServerOptions, counters: ServerCounters) -> LeaseController:
    """A controller with a client of its own; requests begin with `start`.

    Raises:
        ConfigError: the flags give no way to the API.
    """
    # In a thread: imports and files.
    client = await asyncio.to_thread(
        connect,
        options.kubeconfig,
        qps=options.kubeconfig_qps,
        burst=options.kubeconfig_burst,
    )
    return LeaseController(client, options, counters)
