"""The C library keeps the blocks that TLS is read into."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from konnectivity.net.memory import keep_read_buffers

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd".split()] + [
        (f"rest{number}", ctypes.c_size_t) for number in range(5)]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info

def mapped(size):
    before = mallinfo().hblks
    block = bytearray(size)
    return mallinfo().hblks - before

print(mapped(256 << 10), keep_read_buffers(), mapped(256 << 10), mapped(8 << 20))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc >= 2.33")
def test_blocks_of_a_read_are_not_mapped_one_by_one_but_large_ones_still_are() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == ["1", "True", "0", "1"]
