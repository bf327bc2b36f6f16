"""How many connections an agent wants to one server, as it says and as the server grants.

Metadata of ours, `konnectivity-connections: 3`, in `Connect` and in its answer. A stock server
does not answer it, and would never use a second connection: it is for servers of ours alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

KEY: Final = "konnectivity-connections"
MOST: Final = 16
"""Connections of one agent to one server, as asked for and as granted."""


def decode(values: Sequence[str]) -> int:
    """The number, at most `MOST`; 1 where nothing, or nothing sensible, is said."""
    text = values[0] if len(values) == 1 else ""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST))):
        return 1
    return max(1, min(int(text), MOST))
