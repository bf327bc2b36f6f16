"""Fixtures for tests that run real servers and agents.

An async test runs on uvloop, as the programs do; with the marker `both_loops` on asyncio's own
loop too. It fails when it leaves a task or a descriptor behind, and when the package blocks the
loop.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings
from tests.net.authority import Authority, Identity
from tests.peers import real_cluster
from tests.peers.leaks import descriptors, settle

# Property tests judge behaviour, not speed: a busy machine is no failure. They repeat known
# examples, so that a run judges the change; `make fuzz` looks for new ones.
settings.register_profile(
    "steady", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("fuzz", settings.get_profile("steady"), derandomize=False)
settings.load_profile("steady")

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_configure(config: pytest.Config) -> None:
    # Tests start programs while grpcio runs; it would remark on each.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    config.addinivalue_line("markers", "both_loops: run on asyncio's own event loop too")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Without a cluster that answers say so once, not in each of the tests that need it."""
    if any(item.get_closest_marker("cluster") for item in session.items):
        reason = real_cluster.absence()
        if reason and not session.config.option.collectonly:
            pytest.exit(reason, returncode=1)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Loops:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.get_closest_marker("both_loops"):
        loops["asyncio"] = asyncio.new_event_loop
    return loops


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certificate authority that servers, agents and frontends trust."""
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def identity(authority: Authority) -> Identity:
    """A certificate for this machine; server, agent and frontend share it."""
    return authority.issue("localhost", "127.0.0.1")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a path short enough for Unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="konn"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    """What factories start is entered here, and ended in the reverse order."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def watched(request: pytest.FixtureRequest) -> None:
    """Put async tests under the two watches below."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("nothing_left_behind")
        request.getfixturevalue("nothing_blocks")


@pytest.fixture
async def nothing_left_behind() -> AsyncIterator[None]:
    await _warm_up()
    before = descriptors()
    yield
    left = await settle(before)
    assert not left, "left behind:\n" + "\n".join(left)


async def _warm_up() -> None:
    """Let the loop and grpcio open what they keep."""
    one, other = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, one)
    other.close()
    transport.abort()
    await asyncio.sleep(0.001)


@pytest.fixture
def nothing_blocks() -> Iterator[None]:
    """Calls of the package that would block the loop raise `BlockingError`."""
    # The demo writes certificates and reads them in turn; nobody waits for it meanwhile.
    watch = BlockBuster("konnectivity", excluded_modules=["konnectivity.demo"])
    for function in watch.functions.values():
        # Before anything is served: files and sockets of a program that starts.
        function.can_block_in("konnectivity/net/tls.py", {"server_context", "client_context"})
        # Every ten seconds: some files of a few kilobytes.
        function.can_block_in("konnectivity/net/reload.py", {"_read"})
        function.can_block_in("konnectivity/net/bind.py", {"unix_socket", "tcp_socket"})
        # The first use of the Kubernetes API: a kubeconfig, and modules; later a token file.
        function.can_block_in("konnectivity/kube/client.py", {"connect"})
        function.can_block_in("lightkube/config/client_adapter.py", {"_read_token"})
        # Once for each connection attempt, seconds apart: a file of some hundred bytes.
        function.can_block_in("konnectivity/agent/link.py", {"read_token"})
        # Files of /proc, which are memory, at each scrape of the metrics and for the status.
        function.can_block_in("konnectivity/observe/process.py", {"families", "open_descriptors"})
        # The Unix socket's own file, at the start and at the end.
        function.can_block_in("konnectivity/net/bind.py", {"file_of", "remove_file"})
        # What log records are written to is the user's choice.
        function.can_block_in("logging/__init__.py", {"emit"})
    watch.activate()
    yield
    watch.deactivate()
