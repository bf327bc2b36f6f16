"""Keeps the C library from asking the kernel for the buffer of each read.

uvloop reads TLS into a fresh object of 256 KiB and shrinks it to what came. Above 128 KiB glibc
maps such a block and unmaps it again: three system calls and page faults for each TLS record, a
third of what a dial costs (docs/decisions/event-loop.md). Blocks of that size stay in the heap
instead, and as much of it is kept when it is free.

Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
from typing import Final

MMAP_THRESHOLD: Final = 512 << 10
"""Bytes from which on a block is mapped: twice uvloop's."""
TRIM_THRESHOLD: Final = 1 << 20
"""Free bytes at the heap's end above which they go back to the kernel."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_read_buffers() -> bool:
    """Set both thresholds; False where the C library has none (musl), which loses nothing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Either alone would end glibc's own adjustment of the other.
    return bool(
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)
    )
