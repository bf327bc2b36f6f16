"""Which servers there are, as one server tells its agents in the answer to `Connect`.

Metadata of ours, `konnectivity-servers: id=host:port&id=`, written like a URL query: the id of
each server and, if it has one, the address at which agents reach that very server. Stock agents
do not look at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, quote

KEY: Final = "konnectivity-servers"
MOST: Final = 64
"""Servers in one announcement, as written and as read: it is part of every answer."""


def encode(servers: Mapping[str, str]) -> str:
    """The text for addresses by id; empty, and not to be sent, for none or more than `MOST`."""
    if len(servers) > MOST:
        return ""
    return "&".join(
        f"{quote(server_id, safe='')}={quote(address, safe=':[]')}"
        for server_id, address in sorted(servers.items())
    )


def decode(text: str) -> dict[str, str]:
    """Addresses by id; empty if the text is nothing that `encode` writes."""
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, max_num_fields=MOST, errors="strict"
        )
    except ValueError:
        return {}
    return {server_id: address for server_id, address in pairs if server_id}
