"""The cluster's side: a node whose kubelet answers over HTTPS, as a process of its own.

It has a kubelet's paths, not its API: `/pods`, `/containerLogs/...` as an endless stream of
lines, `/exec/...` as a two-way exchange after an upgrade, and `/bulk` as source and sink.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import socket
import ssl
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from konnectivity.demo.payload import CHUNK, Payload

POD: Final = "web-0"
LOG_INTERVAL: Final = 0.02
"""Seconds between two lines of the container's log."""
PROTOCOL: Final = "demo-lines"
"""What an exec upgrades to: each line comes back in capitals."""


class KubeletRequest(BaseHTTPRequestHandler):
    """One connection to the kubelet; the methods are what it answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30.0  # seconds for each read and write, the TLS handshake included
    server: Node

    def do_GET(self) -> None:
        """Answer with the page, the log or the bulk source."""
        match self.path.split("?")[0].split("/")[1:]:
            case ["pods"]:
                self._list_pods()
            case ["containerLogs", _, _, _]:
                self._follow_log()
            case ["bulk"]:
                self._send_bulk()
            case _:
                self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Start an exec, or take in bulk data."""
        match self.path.split("?")[0].split("/")[1:]:
            case ["exec", _, _, _]:
                self._exec()
            case ["bulk"]:
                self._receive_bulk()
            case _:
                self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: the demo reports what was asked for."""

    def _list_pods(self) -> None:
        pod = {"metadata": {"name": POD, "namespace": "default"}, "status": {"phase": "Running"}}
        self._answer_json({"kind": "PodList", "apiVersion": "v1", "items": [pod]})

    def _follow_log(self) -> None:
        self._begin(("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked"))
        for number in itertools.count():
            line = b"%d %d\n" % (number, time.monotonic_ns())
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            time.sleep(LOG_INTERVAL)

    def _exec(self) -> None:
        upgrade = (("Connection", "Upgrade"), ("Upgrade", PROTOCOL))
        self._begin(*upgrade, status=HTTPStatus.SWITCHING_PROTOCOLS)
        self.close_connection = True
        for line in self.rfile:
            self.wfile.write(line.upper())

    def _send_bulk(self) -> None:
        payload = self.server.payload
        self._begin(("Content-Length", str(payload.size)), ("X-Sha256", self.server.digest))
        for chunk in payload:
            self.wfile.write(chunk)

    def _receive_bulk(self) -> None:
        sha256, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left and (data := self.rfile.read1(min(left, CHUNK))):
            sha256.update(data)
            left -= len(data)
        self._answer_json({"missing": left, "sha256": sha256.hexdigest()})

    def _answer_json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self._begin(("Content-Type", "application/json"), ("Content-Length", str(len(body))))
        self.wfile.write(body)

    def _begin(self, *fields: tuple[str, str], status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()


class Node(ThreadingHTTPServer):
    """The kubelet's listener: TLS, one thread per connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__((host, port), KubeletRequest)
        self.payload = Payload()
        self.digest = self.payload.digest()
        self._context = context

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the handshake waits for the connection's own thread."""
        connection, peer = super().get_request()
        tls = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return tls, peer

    def handle_error(self, request: object, client_address: object) -> None:
        """One line for a connection that failed; a client that left is no failure."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | ssl.SSLEOFError):
            print(f"kubelet: {client_address}: {error!r}", file=sys.stderr)  # noqa: T201


def main(argv: list[str] | None = None) -> None:
    """Serve until the process ends; says `listening on <host>:<port>` once it does."""
    parser = argparse.ArgumentParser(prog="cluster", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert", required=True)
    parser.add_argument("--key", required=True)
    args = parser.parse_args(argv)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.cert, args.key)
    with Node(args.host, args.port, context) as node:
        host, port = node.socket.getsockname()[:2]
        print(f"listening on {host}:{port}", flush=True)  # noqa: T201
        node.serve_forever()


if __name__ == "__main__":
    main()
