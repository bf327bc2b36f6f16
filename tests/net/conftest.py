"""Both event loops, a certificate authority, and a watch over what is left behind."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import uvloop
from tests.net.authority import Authority


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test of this folder on both loops: the shell must work on either."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    """A context without root's privileges, for tests that run as root."""
    return _unprivileged


@contextmanager
def _unprivileged() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """Fail a test that leaves a task or a descriptor behind."""
    await _warm_up()
    before = _descriptors()
    yield
    for _ in range(100):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        after = _descriptors()
        if not tasks and len(after) <= len(before):
            return
        await asyncio.sleep(0.01)
    assert not tasks, f"tasks left: {tasks}"
    assert len(after) <= len(before), f"descriptors left, among {after}"


async def _warm_up() -> None:
    """Let the loop open what it keeps: uvloop opens some descriptors with its first stream."""
    one, other = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, one)
    other.close()
    transport.abort()
    await asyncio.sleep(0.001)


def _descriptors() -> list[str]:
    # By number of open ones, not by name: uvloop renews its own in each run of the loop.
    return [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
