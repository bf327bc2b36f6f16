"""Two chained TLS relays in the place of a pair: what mutual TLS alone costs.

The first takes connections at a Unix socket, the second leads to the endpoint. Each connection has
a TLS connection of its own between them: nothing is multiplexed, no limit is kept but TCP's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.certificate import Certificates
from bench.error import BenchError
from bench.pair import Pair, await_ready, free_ports, listens, started

NAME = "relay"

CONFIGURATION = """
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen relay
    bind {front}
    server next {back}
"""


def find() -> str:
    """Return haproxy: `HAPROXY` from the environment, else from where Debian installs it.

    Raises:
        BenchError: there is none.
    """
    name = os.environ.get("HAPROXY", "haproxy")
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise BenchError(
            f"{name} not found: install it, e.g. the package haproxy, or name it in HAPROXY"
        )
    return found


@contextmanager
def relaying(certificates: Certificates) -> Iterator[Pair]:
    """Start both relays, hand them out once they listen, and stop them.

    Raises:
        BenchError: one ended or is not ready; with the last line of its log.
    """
    program = find()
    port, endpoint = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        uds, trust = folder / "frontend.sock", f"ca-file {certificates.ca} verify required"
        server = _joined(folder / "server.pem", certificates.server_cert, certificates.server_key)
        agent = _joined(folder / "agent.pem", certificates.agent_cert, certificates.agent_key)
        address = f"127.0.0.1:{port}"
        ends = {
            "far": (f"{address} ssl crt {server} {trust}", f"127.0.0.1:{endpoint}"),
            "near": (f"unix@{uds}", f"{address} ssl crt {agent} {trust}"),
        }
        pids = {}
        for end, (front, back) in ends.items():
            configuration, log = folder / f"{end}.cfg", folder / f"{end}.log"
            configuration.write_text(CONFIGURATION.format(front=front, back=back))
            process = stack.enter_context(started((program, "-db", "-f", str(configuration)), log))
            door = uds if end == "near" else port
            await_ready(partial(listens, door), process, log, f"{end} relay")
            pids[end] = process.pid
        yield Pair(NAME, uds, pids["near"], pids["far"], speaks=NAME, endpoint_port=endpoint)


def _joined(file: Path, *parts: Path) -> Path:
    """Write certificate and key into one file, as haproxy wants them."""
    file.touch(mode=0o600)
    file.write_bytes(b"".join(part.read_bytes() for part in parts))
    return file
