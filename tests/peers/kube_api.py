"""A small Kubernetes API server on loopback: a store of JSON objects, watches, token reviews.

    async with KubeApi() as api:
        config = api.kubeconfig(folder)

It serves any resource under its usual path and keeps what it is given. `requests` tells what was
asked, `faults` makes it answer badly or not at all.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import h11
import yaml
from tests.net.authority import Authority, Identity
from tests.peers import kube_discovery, kube_patch
from tests.peers.kube_store import Object, Place, Refusal, Store, Watcher

Review = Callable[[Object], Object | Awaitable[Object]]

APPLY = "application/apply-patch+yaml"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Request(NamedTuple):
    """One request as it came in; `body` is parsed JSON, or None."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    accept: str = ""
    content: str = ""
    """Its media type."""

    @property
    def writes(self) -> bool:
        """Whether it may change something."""
        asks = self.path in (REVIEWS, ACCESS_REVIEWS)
        return self.method != "GET" and not self.query.get("dryRun") and not asks


@dataclass
class Fault:
    """A bad answer to requests of `method` (empty: any) whose path contains `path`.

    With a `status` it is that error; `drop` closes the connection instead, `hang` never answers.
    `delay` seconds pass first; a fault with a delay alone is a slow answer. `times` counts down
    to 0; None: for ever.
    """

    method: str = ""
    path: str = ""
    status: int = 0
    reason: str = ""
    message: str = "it was told to fail"
    delay: float = 0.0
    hang: bool = False
    drop: bool = False
    text: str = ""
    """The whole body, with status 200."""
    watch: bool | None = None
    """Only watches, or only what is no watch."""
    times: int | None = None

    def hits(self, request: Request) -> bool:
        return (
            self.times != 0
            and self.method in ("", request.method)
            and self.path in request.path
            and self.watch in (None, is_watch(request))
        )


def is_watch(request: Request) -> bool:
    return request.query.get("watch") in ("true", "1")


class KubeApi(Store):
    """The API server. With an `identity` it speaks HTTPS; `authority` then goes in kubeconfigs."""

    def __init__(
        self, identity: Identity | None = None, authority: Authority | None = None
    ) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.bearers: list[str] = []
        """The bearer token of each request, or an empty string."""
        self.faults: list[Fault] = []
        self.tokens: set[str] | None = None
        """Those that are let in; None: everybody."""
        self.review: Review = lambda spec: {"authenticated": False, "error": "no such token"}
        self.allowed: Callable[[Object], bool] = lambda attributes: True
        """Whether a client may do what it asks about; nothing is refused by it."""
        self.log_of: Callable[[str, int], str] | None = None
        """The last lines of a pod's log; None: every pod has some log."""
        self.port = 0
        self.answered: list[tuple[Request, int]] = []
        """What was answered with which status; watches when they begin."""
        self._identity = identity
        self._authority = authority
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> KubeApi:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; after `stop` on the same port."""
        context = None
        if self._identity is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._identity.cert, self._identity.key)
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and all connections; the objects stay."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()
        self._server = None

    @property
    def url(self) -> str:
        return f"http{'s' if self._identity else ''}://127.0.0.1:{self.port}"

    def kubeconfig(self, directory: Path, *, token: str = "kube-api-token") -> Path:  # noqa: S107
        """A kubeconfig file with one context for this server."""
        cluster = {"server": self.url}
        if self._authority is not None:
            cluster["certificate-authority"] = self._authority.bundle
        path = directory / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "test", "user": {"token": token}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                    "current-context": "test",
                }
            )
        )
        return path

    def asked(self, method: str, path: str = "", *, watch: bool = False) -> list[Request]:
        """The requests of `method` whose path contains `path`; watches or the others."""
        return [
            each
            for each in self.requests
            if each.method == method and path in each.path and is_watch(each) == watch
        ]

    # HTTP

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # One that is cancelled before its first step would leave its connection open.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = h11.Connection(h11.SERVER)
        try:
            while await self._serve_one(wire, reader, writer):
                wire.start_next_cycle()
        except (ConnectionError, h11.ProtocolError, asyncio.CancelledError):
            pass  # the client left, or this server stops
        finally:
            writer.transport.abort()

    async def _serve_one(
        self, wire: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether another request may follow."""
        head, body = None, b""
        while True:
            event = wire.next_event()
            if event is h11.NEED_DATA:
                wire.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert head is not None
        request = self._parse(head, body)
        leaving = asyncio.create_task(reader.read(1))
        try:
            answering = asyncio.create_task(self._answer(request, wire, writer))
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                answering.cancel()
                await asyncio.wait({answering})
                return False
            go_on = answering.result() and wire.our_state is h11.DONE
        finally:
            leaving.cancel()
            answering.cancel()
            await asyncio.wait({leaving, answering})
        if go_on and not leaving.cancelled():
            # The client was quick: this is the first byte of its next request, or the end.
            wire.receive_data(leaving.result())
        return go_on

    def _parse(self, head: h11.Request, body: bytes) -> Request:
        target = urlsplit(head.target.decode())
        headers = {name.decode(): value.decode() for name, value in head.headers}
        self.bearers.append(headers.get("authorization", "").removeprefix("Bearer "))
        query = dict(parse_qsl(target.query, keep_blank_values=True))
        parsed = yaml.safe_load(body) if body else None  # apply patches may be YAML; JSON is, too
        request = Request(
            head.method.decode(),
            target.path,
            query,
            parsed,
            headers.get("accept", ""),
            headers.get("content-type", "").partition(";")[0],
        )
        self.requests.append(request)
        return request

    async def _answer(
        self, request: Request, wire: h11.Connection, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; False: close the connection without."""
        bearer = self.bearers[-1]
        fault = next((fault for fault in self.faults if fault.hits(request)), None)
        if fault is not None:
            if fault.times is not None:
                fault.times -= 1
            await asyncio.sleep(fault.delay)
            if fault.hang:
                await asyncio.Event().wait()
            if fault.drop:
                return False
            if fault.text:
                await self._reply(wire, writer, 200, fault.text.encode())
                return True
        try:
            if fault is not None and fault.status:
                raise Refusal(fault.status, fault.message, reason=fault.reason)  # noqa: TRY301
            if self.tokens is not None and bearer not in self.tokens:
                raise Refusal(401, "Unauthorized")  # noqa: TRY301
            if is_watch(request):
                await self._watch(request, wire, writer)
                return True
            if self.log_of is not None and request.path.endswith("/log"):
                lines = int(request.query.get("tailLines") or 100)
                text = self.log_of(Place.parse(request.path).name, lines)
                await self._reply(wire, writer, 200, text.encode())
                return True
            status, item = await self._dispatch(request)
        except Refusal as refusal:
            status, item = refusal.code, refusal.status
        self.answered.append((request, status))
        await self._reply(wire, writer, status, json.dumps(item).encode())
        return True

    async def _reply(
        self, wire: h11.Connection, writer: asyncio.StreamWriter, status: int, content: bytes
    ) -> None:
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        self._send(
            wire,
            writer,
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=content),
            h11.EndOfMessage(),
        )
        await writer.drain()

    @staticmethod
    def _send(wire: h11.Connection, writer: asyncio.StreamWriter, *events: h11.Event) -> None:
        for event in events:
            writer.write(wire.send(event) or b"")

    async def _watch(
        self, request: Request, wire: h11.Connection, writer: asyncio.StreamWriter
    ) -> None:
        watcher = Watcher(
            Place.parse(request.path),
            request.query.get("labelSelector", ""),
            request.query.get("allowWatchBookmarks") in ("true", "1"),
            request.query.get("fieldSelector", ""),
        )
        for event in self._missed(watcher, int(request.query.get("resourceVersion") or 0)):
            watcher.events.put_nowait(event)
        self.answered.append((request, 200))
        headers = [("Content-Type", "application/json")]
        self._send(wire, writer, h11.Response(status_code=200, headers=headers))
        limit = float(request.query.get("timeoutSeconds") or 3600)
        self._watchers.add(watcher)
        try:
            async with asyncio.timeout(limit):
                while (told := await watcher.events.get()) is not None:
                    self._send(wire, writer, h11.Data(data=json.dumps(told).encode() + b"\n"))
                    await writer.drain()
        except TimeoutError:
            pass
        finally:
            self._watchers.discard(watcher)
        self._send(wire, writer, h11.EndOfMessage())

    async def _dispatch(self, request: Request) -> tuple[int, Object]:
        if request.method == "POST" and request.path == REVIEWS:
            status = self.review(request.body["spec"])
            if inspect.isawaitable(status):
                status = await status
            return 201, request.body | {"status": status}
        if request.method == "POST" and request.path == ACCESS_REVIEWS:
            allowed = self.allowed(request.body["spec"]["resourceAttributes"])
            return 201, request.body | {"status": {"allowed": allowed}}
        if request.method == "GET" and (known := kube_discovery.answer(request.path)):
            return 200, known
        place = Place.parse(request.path)
        if request.path.rstrip("/").endswith(f"/{place.name}/scale"):
            return 200, self._scale(place, request)
        manager = request.query.get("fieldManager", "")
        dry_run = bool(request.query.get("dryRun"))
        match request.method, bool(place.name):
            case "GET", False:
                query = request.query
                found = self._list(
                    place, query.get("labelSelector", ""), query.get("fieldSelector", "")
                )
                return 200, kube_discovery.negotiated(found, request.accept)
            case "GET", True:
                return 200, kube_discovery.negotiated(self._existing(place), request.accept)
            case "POST", False:
                body = copy.deepcopy(request.body)
                return 201, self._create(place, body, manager=manager, dry_run=dry_run)
            case "PUT", True:
                body = copy.deepcopy(request.body)
                return 200, self._update(place, body, manager=manager, dry_run=dry_run)
            case "PATCH", True:
                return self._patch(place, request, manager=manager, dry_run=dry_run)
            case "DELETE", True:
                return 200, self._delete(place, request.body or {})
        raise Refusal(405, f"{request.method} is not for {request.path}")

    def _patch(
        self, place: Place, request: Request, *, manager: str, dry_run: bool
    ) -> tuple[int, Object]:
        body = copy.deepcopy(request.body)
        if request.content == APPLY:
            if not manager:
                raise Refusal(400, "fieldManager is required for apply patch")
            there = place in self._objects
            force = request.query.get("force") == "true"
            item = self._apply(place, body, manager=manager, force=force, dry_run=dry_run)
            return 200 if there else 201, item
        item = copy.deepcopy(self._existing(place))
        patched = kube_patch.patch(item, body, request.content)
        return 200, self._update(place, patched, manager=manager, dry_run=dry_run)

    def _scale(self, place: Place, request: Request) -> Object:
        """The subresource of `kubectl scale`."""
        item = copy.deepcopy(self._existing(place))
        if request.method != "GET":
            item["spec"]["replicas"] = request.body["spec"]["replicas"]
            item = self._update(place, item, manager=request.query.get("fieldManager", "kubectl"))
        meta = {key: item["metadata"].get(key) for key in ("name", "namespace", "resourceVersion")}
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": meta,
            "spec": {"replicas": item["spec"].get("replicas", 1)},
            "status": {"replicas": item["spec"].get("replicas", 1)},
        }
