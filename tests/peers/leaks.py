"""What a process holds: the asyncio tasks of a loop and the descriptors of the process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from pathlib import Path

GRACE = 4.0
"""Seconds that closing connections get: a TLS peer that does not answer is waited for."""

Descriptors = Mapping[int, str]


def descriptors() -> Descriptors:
    """Open sockets, pipes and files by number.

    Event loops' and libraries' own descriptors (epoll, eventfd, timers) are left out: they come
    and go as their owners like.
    """
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue  # the one that lists this directory
        if not target.startswith("anon_inode:"):
            found[int(entry.name)] = target
    return found


def describe(number: int, target: str) -> str:
    """A descriptor for people: for a socket, its ends."""
    if not target.startswith("socket:"):
        return f"{number}: {target}"
    try:
        with socket.socket(fileno=os.dup(number)) as sock:
            name, peer = sock.getsockname(), ""
            try:
                peer = sock.getpeername()
            except OSError:
                peer = "-"
            return f"{number}: socket {name!r} <-> {peer!r}"
    except OSError:
        return f"{number}: {target}"


async def settle(before: Descriptors) -> list[str]:
    """Wait until nothing is left that was not there `before`; what still is, one line each."""
    deadline = asyncio.get_running_loop().time() + GRACE
    while True:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        after = descriptors()
        # By count: a loop may close a descriptor of its own and open another in its place.
        extra = len(after) - len(before)
        if not tasks and extra <= 0:
            return []
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.01)
    lines = [f"task {task.get_coro()!r}" for task in tasks]
    if extra > 0:
        new = {number: after[number] for number in after if before.get(number) != after[number]}
        lines += [f"descriptor {describe(*item)}" for item in new.items()]
    return lines
