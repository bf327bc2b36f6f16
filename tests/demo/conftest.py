"""A kubelet as the demo has it, in a thread, reached without a tunnel."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from konnectivity.demo.certificates import Authority
from konnectivity.demo.cluster import Node
from konnectivity.demo.https import Stream
from konnectivity.demo.scenes import Kubelet


@dataclass
class RunningNode:
    """A node and how to reach it; `node` may be told to misbehave before it is asked."""

    node: Node
    kubelet: Kubelet


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    directory = tmp_path / "pki"
    directory.mkdir()
    return Authority(directory)


@pytest.fixture
def running_node(authority: Authority) -> Iterator[RunningNode]:
    pair = authority.issue_server("kubelet", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with Node("127.0.0.1", 0, context) as node:
        thread = threading.Thread(target=node.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        trust = ssl.create_default_context(cafile=authority.bundle)
        port = node.socket.getsockname()[1]
        yield RunningNode(node, Kubelet(dial_directly, "127.0.0.1", port, trust))
        node.shutdown()
        thread.join()


async def dial_directly(address: str) -> Stream:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))
