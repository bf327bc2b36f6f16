"""Leader election by a Lease: of several managers one writes, the others stand by.

A standby believes the lease's clock in nothing: it counts from when it saw the lease change. The
leader stops writing when it could not renew for `deadline`, well before others may take over.

Source: client-go `tools/leaderelection`; differs: 30 s, 15 s instead of 15 s, 10 s, and a renewal
each 5 s instead of 2 s, which is less traffic.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import LEASES, Collection, Object, status_of
from konnectivity.kube.leases import access_rule, format_time
from konnectivity.net.backoff import lengthened
from konnectivity.observe import logs

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

LEASE: Final = "konnectivity-manager"
VERBS: Final = ("get", "create", "update")


@dataclass(frozen=True, slots=True)
class ElectionTimes:
    """Times in seconds."""

    duration: float = 30.0
    """Others wait for so long after the last renewal that they saw."""
    deadline: float = 15.0
    """The leader stops when it could not renew for so long."""
    renewal: float = 5.0
    poll: float = 2.0
    """How often a standby looks."""


class Election:
    """One candidate. `async with election:` takes part until the block ends, and then resigns.

    `changed` is called when it begins or ceases to lead.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        namespace: str,
        identity: str,
        changed: Callable[[], None],
        times: ElectionTimes | None = None,
    ) -> None:
        self.identity = identity
        self.leader = ""
        """Who leads, as far as known."""
        self.namespace = namespace
        self._leases = Collection(client, LEASES.format(namespace=namespace))
        self._remedy = access_rule(VERBS, namespace)
        self._changed = changed
        self._times = times or ElectionTimes()
        self._lease: Object | None = None
        self._record: object = None
        self._seen_at = 0.0
        self._renewed_at = float("-inf")
        self._was_leading = False
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def leading(self) -> bool:
        """Whether we may write now. Ask before each write."""
        return time.monotonic() < self._renewed_at + self._times.deadline

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self.leading:
            with suppress(*failures()):
                await self._write(holder="")
        self._renewed_at = float("-inf")

    async def _run(self) -> None:
        wrong: tuple[type[Exception], ...] = (*failures(), TimeoutError)
        while True:
            try:
                async with asyncio.timeout(self._times.deadline):
                    await self._try()
                self._trouble = ""
            except wrong as error:
                self._lease = None
                self._complain(error)
            self._tell()
            calm = self.leading and not self._trouble
            wait = self._times.renewal if calm else self._times.poll
            await asyncio.sleep(lengthened(wait, 0.1))

    async def _try(self) -> None:
        """Renew, or see who leads and take over if nobody does."""
        if self._lease is None or not self.leading:
            self._lease = await self._read()
            if self._lease is not None and not self._may_take(self._lease):
                self._renewed_at = float("-inf")
                return
        asked = time.monotonic()
        self._lease = await self._write(holder=self.identity)
        self._renewed_at, self.leader = asked, self.identity

    async def _read(self) -> Object | None:
        try:
            return await self._leases.get(LEASE)
        except failures() as error:
            if (status := status_of(error)) and status[0] == 404:
                return None
            raise

    def _may_take(self, lease: Object) -> bool:
        spec = lease.get("spec") or {}
        self.leader = str(spec.get("holderIdentity") or "")
        record = (self.leader, spec.get("renewTime"), lease["metadata"].get("resourceVersion"))
        now = time.monotonic()
        if record != self._record:
            self._record, self._seen_at = record, now
        if self.leader in ("", self.identity):
            return True
        duration = spec.get("leaseDurationSeconds")
        if not isinstance(duration, int) or duration <= 0:
            duration = self._times.duration
        return now > self._seen_at + duration

    async def _write(self, *, holder: str) -> Object:
        """Write the lease over the one we know, or create it."""
        now = format_time(time.time())
        old = self._lease or {}
        before = old.get("spec") or {}
        spec = {
            **before,
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, int(self._times.duration)),
            "renewTime": now,
        }
        if before.get("holderIdentity") != holder:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(before.get("leaseTransitions") or 0) + bool(old)
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": old.get("metadata") or {"name": LEASE},
            "spec": spec,
        }
        write = self._leases.replace if old else self._leases.create
        return await write(lease)

    def _tell(self) -> None:
        if self.leading != self._was_leading:
            self._was_leading = self.leading
            log.info("Leading" if self.leading else "Standing by", leader=self.leader)
            self._changed()

    def _complain(self, error: BaseException) -> None:
        text = describe(error)
        if text == self._trouble:
            return
        self._trouble = text
        status = status_of(error)
        if status and status[0] == 409:
            return  # somebody else was quicker
        hint = {"remedy": self._remedy} if status and status[0] == 403 else {}
        log.warning("Cannot take part in the election; trying again", error=text, **hint)
