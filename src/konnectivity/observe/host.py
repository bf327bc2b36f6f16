"""By which names an admin listener on loopback is asked: by addresses and `localhost`.

Only this machine reaches loopback, but a browser on it runs what web sites send. A site whose name
leads to 127.0.0.1 for a moment (DNS rebinding) would read all that is served here as its own. The
browser says in `Host` by which name it asks, and no site has an address or `localhost` for a name.

Source: RFC 9110, 7.4.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

from konnectivity.gotext import one_line
from konnectivity.observe import logs
from konnectivity.observe.route import Request, Response

log = logs.get(__name__)

_HOST: Final = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<name>[^:\[\]]+?)\.?)(?::[0-9]*)?")
"""`uri-host [":" port]` (RFC 9110, 7.2)."""
MISDIRECTED: Final = Response(
    b"this admin port is bound to loopback, so it answers to localhost and IP addresses only: use "
    b"127.0.0.1 or localhost, or set --admin-token-file, --admin-cert or --admin-bind-address\n",
    status=421,
)
LONGEST_LOGGED: Final = 100


async def refuse_names(request: Request) -> Response | None:
    """The answer to a request by another name; None for one to pass, also without `Host`."""
    host = request.host
    if not host or _is_local(host):
        return None
    log.summarised(
        "host",
        "Admin request refused: it is for another host; a web site may try to read this port",
        host=one_line(host[:LONGEST_LOGGED]),
    )
    return MISDIRECTED


def is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine can reach what listens on `sock`."""
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return False
    ip = ipaddress.ip_address(name[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _is_local(host: str) -> bool:
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    try:
        if found["six"]:
            ipaddress.IPv6Address(found["six"])
        elif found["name"].lower() != "localhost":
            ipaddress.IPv4Address(found["name"])
    except ValueError:
        return False
    return True
