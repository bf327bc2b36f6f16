"""Which peers are admitted by what their certificate says of them.

A CA usually signs for more than one purpose, so that its signature alone says little (W47). The
patterns of `--agent-certificate-identities` and `--frontend-certificate-identities` name who is
meant; one that matches is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

_SUBJECT: Final = {"commonName": "CN", "organizationName": "O"}
_ALTERNATIVE: Final = {"DNS": "DNS", "URI": "URI"}
_WITHIN: Final = {"CN": ".*", "O": ".*", "DNS": r"[^.]*", "URI": "[^/]*"}
"""What `*` stands for in each kind: in names and paths it does not leave its part."""


def identities(certificate: Mapping[str, Any]) -> Iterator[str]:
    """What a peer's certificate says, each as `CN=...`, `O=...`, `DNS=...` or `URI=...`.

    `certificate` is what `ssl.SSLObject.getpeercert` gives; it is empty for a peer without one.
    """
    for part in certificate.get("subject", ()):
        for kind, value in part:
            if kind in _SUBJECT:
                yield f"{_SUBJECT[kind]}={value}"
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in _ALTERNATIVE:
            yield f"{_ALTERNATIVE[kind]}={value}"


def compile_pattern(text: str) -> re.Pattern[str]:
    """The expression for one pattern such as `URI=spiffe://cluster.local/ns/*/sa/agent`.

    `*` stands for any characters: in `DNS` except a dot, in `URI` except a slash. `DNS` ignores
    case, as names do.

    Raises:
        ValueError: why it is none.
    """
    kind, _, value = text.partition("=")
    if kind not in _WITHIN or not value:
        raise ValueError("must be CN=, O=, DNS= or URI= with a value, in which * is a wildcard")
    body = _WITHIN[kind].join(re.escape(part) for part in value.split("*"))
    return re.compile(f"{kind}={body}", re.IGNORECASE if kind == "DNS" else 0)


class CertificateGate:
    """Admits the peers whose certificate matches one of `patterns`, or all if there are none."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(patterns)
        self._patterns = [compile_pattern(text) for text in patterns]

    def refusal(self, transport: asyncio.BaseTransport | None) -> str:
        """Why the peer of a connection may not come in; empty if it may."""
        if not self._patterns:
            return ""
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        shown = list(identities(certificate or {}))
        if any(pattern.fullmatch(each) for pattern in self._patterns for each in shown):
            return ""
        expected = " or ".join(self.patterns)
        return f"certificate is for {', '.join(shown) or 'nobody'}; expected {expected}"
