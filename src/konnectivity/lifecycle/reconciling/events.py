"""Kubernetes Events about what a manager did, for `kubectl get events` and `kubectl describe`.

They are told and never waited for: what cannot be written is dropped and counted. The same thing
that happens again is one Event that counts.

Source: client-go `tools/record`; an Event of a cluster-scoped object is in namespace `default`.
"""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from konnectivity.kube.client import describe, failures
from konnectivity.kube.collection import MERGE_PATCH, Collection, Object, status_of
from konnectivity.kube.resources import collection_path, rule
from konnectivity.lifecycle.reconciling.plan import MANAGER, Key
from konnectivity.observe import logs

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

LONGEST_MESSAGE: Final = 1024  # bytes; the API's limit
MOST_WAITING: Final = 256
MOST_KNOWN: Final = 256
SAME_FOR: Final = 600.0
"""Seconds for which a repetition counts on the same Event."""


@dataclass(frozen=True, slots=True)
class _Told:
    key: Key
    reason: str
    message: str
    warning: bool
    uid: str
    time: float


@dataclass(slots=True)
class _Sent:
    name: str
    count: int
    last: float


class Recorder:
    """Writes Events. `async with recorder:` sends them until the block ends."""

    def __init__(self, client: AsyncClient) -> None:
        self.dropped = 0
        self._client = client
        self._host = socket.gethostname()
        self._waiting: asyncio.Queue[_Told] = asyncio.Queue(MOST_WAITING)
        self._known: OrderedDict[tuple[Key, str], _Sent] = OrderedDict()
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def record(
        self, key: Key, reason: str, message: str, *, warning: bool = False, uid: str = ""
    ) -> None:
        """Tell what happened to an object; `uid` is that of the object, if there is one."""
        text = message.encode()[:LONGEST_MESSAGE].decode(errors="ignore")
        try:
            self._waiting.put_nowait(_Told(key, reason, text, warning, uid, time.time()))
        except asyncio.QueueFull:
            self.dropped += 1

    async def flush(self) -> None:
        """Wait until all that was told is sent, or dropped."""
        await self._waiting.join()

    async def _run(self) -> None:
        while True:
            told = await self._waiting.get()
            try:
                await self._send(told)
                self._trouble = ""
            except failures() as error:
                self._drop(told, error)
            finally:
                self._waiting.task_done()

    async def _send(self, told: _Told) -> None:
        events = Collection(self._client, collection_path("v1", "Event", _namespace(told.key)))
        sent = self._known.get((told.key, told.reason))
        if sent is not None and told.time - sent.last < SAME_FOR:
            patch = {
                "count": sent.count + 1,
                "message": told.message,
                "lastTimestamp": _time(told.time),
            }
            try:
                await events.patch(sent.name, patch, content=MERGE_PATCH, manager=MANAGER)
            except failures() as error:
                if (status := status_of(error)) is None or status[0] != 404:
                    raise
            else:
                sent.count, sent.last = sent.count + 1, told.time
                return
        event = _event(told, self._host)
        await events.create(event)
        self._known[told.key, told.reason] = _Sent(event["metadata"]["name"], 1, told.time)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def _drop(self, told: _Told, error: Exception) -> None:
        self.dropped += 1
        text = describe(error)
        if text != self._trouble:
            self._trouble = text
            status = status_of(error)
            remedy = rule(("create", "patch"), "v1", "Event", _namespace(told.key))
            hint = {"remedy": remedy} if status and status[0] == 403 else {}
            log.warning("Cannot write an Event", reason=told.reason, error=text, **hint)


def _namespace(key: Key) -> str:
    return key.namespace or "default"


def _event(told: _Told, host: str) -> Object:
    key = told.key
    involved = {"apiVersion": key.api_version, "kind": key.kind, "name": key.name}
    if key.namespace:
        involved["namespace"] = key.namespace
    if told.uid:
        involved["uid"] = told.uid
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{key.name.replace(':', '.')}.{uuid.uuid4().hex[:16]}",
            "namespace": _namespace(key),
        },
        "involvedObject": involved,
        "reason": told.reason,
        "message": told.message,
        "type": "Warning" if told.warning else "Normal",
        "source": {"component": MANAGER, "host": host},
        "firstTimestamp": _time(told.time),
        "lastTimestamp": _time(told.time),
        "count": 1,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
