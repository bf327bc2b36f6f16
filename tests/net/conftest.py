"""What tests of the asyncio shell need besides sockets and certificates."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest


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
