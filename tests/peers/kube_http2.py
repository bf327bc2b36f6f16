"""The small Kubernetes API server over HTTP/2 and TLS, by way of `h2`, as the real one serves."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11
from tests.net.authority import Authority, Identity
from tests.peers.kube_api import KubeApi


class Http2KubeApi(KubeApi):
    """As `KubeApi`, with HTTP/2 for who asks for it; `accepted` counts its connections.

    Many of them may share a `context`, which saves the reading of the certificate.
    """

    def __init__(
        self, identity: Identity, authority: Authority, context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(identity, authority)
        self.accepted = 0
        self.pings = 0
        self.context = context or server_context(identity)

    async def start(self) -> None:
        """Listen; after `stop` on the same port."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self.context, backlog=64
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            await super()._serve(reader, writer)
            return
        connection = _Connection(self, writer)
        try:
            while data := await reader.read(65536):
                connection.received(data)
        except (ConnectionError, h2.exceptions.ProtocolError, asyncio.CancelledError):
            pass  # the client left, or this server stops
        finally:
            await connection.end()
            writer.transport.abort()


def server_context(identity: Identity, *, http2: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context


class _Connection:
    def __init__(self, api: Http2KubeApi, writer: asyncio.StreamWriter) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.writer = writer
        self._api = api
        self._requests: dict[int, tuple[h11.Request, bytearray]] = {}
        self._answers: dict[int, asyncio.Task[None]] = {}
        self._wires: dict[int, _Wire] = {}
        self.h2.initiate_connection()
        self.flush()

    def received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    self._requests[event.stream_id] = (_request(event), bytearray())
                case h2.events.DataReceived():
                    self._requests[event.stream_id][1].extend(event.data)
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    self._begin(event.stream_id)
                case h2.events.StreamReset() if event.stream_id in self._answers:
                    self._answers[event.stream_id].cancel()
                case h2.events.WindowUpdated():
                    for wire in list(self._wires.values()):
                        wire.go_on()
                case h2.events.PingReceived():
                    self._api.pings += 1
        self.flush()

    def flush(self) -> None:
        if not self.writer.transport.is_closing():
            self.writer.write(self.h2.data_to_send())

    def _begin(self, stream_id: int) -> None:
        head, body = self._requests.pop(stream_id)
        task = asyncio.create_task(self._answer(stream_id, head, bytes(body)))
        self._answers[stream_id] = task
        task.add_done_callback(lambda _: self._answers.pop(stream_id))

    async def _answer(self, stream_id: int, head: h11.Request, body: bytes) -> None:
        wire = self._wires[stream_id] = _Wire(self, stream_id)
        try:
            request = self._api._parse(head, body)
            if not await self._api._answer(request, wire, self.writer):  # type: ignore[arg-type]
                self.writer.transport.abort()
            await wire.sent()
        finally:
            del self._wires[stream_id]

    async def end(self) -> None:
        tasks = list(self._answers.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _request(event: h2.events.RequestReceived) -> h11.Request:
    headers = [(str(name), str(value)) for name, value in event.headers or []]
    pseudo = {name: value for name, value in headers if name.startswith(":")}
    return h11.Request(
        method=pseudo[":method"],
        target=pseudo[":path"],
        headers=[
            ("host", pseudo[":authority"]),
            *(each for each in headers if not each[0].startswith(":")),
        ],
    )


class _Wire:
    """One answer: takes what `KubeApi` would give to h11, and sends it on a stream."""

    def __init__(self, connection: _Connection, stream_id: int) -> None:
        self._connection = connection
        self._id = stream_id
        self._waiting = bytearray()
        self._ending = False
        self._done = asyncio.Event()

    def send(self, event: h11.Event) -> bytes:
        h2 = self._connection.h2
        if isinstance(event, h11.Response):
            headers = [(":status", str(event.status_code))]
            headers += [(name.decode(), value.decode()) for name, value in event.headers]
            h2.send_headers(self._id, headers)
        elif isinstance(event, h11.Data):
            self._waiting += event.data
        else:
            self._ending = True
        self.go_on()
        return b""

    async def sent(self) -> None:
        """Wait until all is sent."""
        if self._ending:
            await self._done.wait()

    def go_on(self) -> None:
        """Send what there is credit for."""
        connection = self._connection.h2
        with suppress(h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError):
            while self._waiting:
                window = connection.local_flow_control_window(self._id)
                size = min(window, connection.max_outbound_frame_size, len(self._waiting))
                if size <= 0:
                    break
                connection.send_data(self._id, bytes(self._waiting[:size]))
                del self._waiting[:size]
            if self._ending and not self._waiting and not self._done.is_set():
                self._done.set()
                connection.end_stream(self._id)
        self._connection.flush()
