"""What a certificate says of itself: its fingerprint, and from when until when it is valid.

`ssl` tells that of peers' certificates only, and a library for it would cost the programs 13 MB
of memory; so this reads the few fields in DER by itself.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

# Tags of ASN.1 (X.690, 8.1.2) that stand in a certificate's head.
_INTEGER: Final = 0x02
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0

_TIME: Final = re.compile(rb"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z\Z")
_FIRST_YEAR: Final = 50  # of UTCTime in the last century; the years before it are of this one


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate. Times are Unix seconds, the fingerprint is lower-case hexadecimal."""

    fingerprint_sha256: str
    not_before: float
    not_after: float

    @classmethod
    def parse(cls, der: bytes) -> Certificate:
        """The certificate that `der` is.

        Raises:
            ValueError: it is none, or its times are not in the form of RFC 5280, 4.1.2.5.
        """
        try:
            begin, end = _validity(der)
        except (IndexError, StopIteration) as error:
            raise ValueError("not a certificate: it ends too early") from error
        return cls(hashlib.sha256(der).hexdigest(), begin, end)

    @property
    def lifetime(self) -> float:
        """Seconds from its first to its last moment."""
        return self.not_after - self.not_before

    def fault_at(self, now: float) -> str:
        """Why a peer with the clock `now` refuses it; empty while it is valid."""
        if now < self.not_before:
            return f"is not valid before {utc(self.not_before)}"
        if now > self.not_after:
            return f"has expired at {utc(self.not_after)}"
        return ""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """A file with certificates: what of it is in use, and what lies on the disk now.

    `name` is that of its flag, like `cluster-cert`. For a chain the facts are those of its first
    certificate, for a CA bundle those of the one that expires last. `error` says why the files on
    the disk are not in use; it is empty when they are. Times are Unix seconds.
    """

    name: str
    path: str
    in_use: Certificate
    on_disk: Certificate | None  # None: no such file, or no certificate in it
    loaded_at: float
    error: str


def expiries(certificates: Iterable[CertificateFacts]) -> dict[tuple[str, ...], float]:
    """The end of each one's validity, by name and `in_use` or `on_disk`."""
    return {
        (each.name, state): certificate.not_after
        for each in certificates
        for state, certificate in (("in_use", each.in_use), ("on_disk", each.on_disk))
        if certificate is not None
    }


def utc(moment: float) -> str:
    """Unix seconds for people: `2026-11-22T05:36:16Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _validity(der: bytes) -> tuple[float, float]:
    """notBefore and notAfter (RFC 5280, 4.1)."""
    (outer,) = _elements(der)
    tag, certificate = next(_elements(outer[1]))
    if outer[0] != _SEQUENCE or tag != _SEQUENCE:
        raise ValueError("not a certificate")
    fields = _elements(certificate)
    tag, _ = next(fields)
    if tag == _VERSION:
        tag, _ = next(fields)
    if tag != _INTEGER:
        raise ValueError("not a certificate: no serial number")
    next(fields)  # the signature's algorithm
    next(fields)  # the issuer
    tag, validity = next(fields)
    if tag != _SEQUENCE:
        raise ValueError("not a certificate: no validity")
    times = [_moment(tag, text) for tag, text in _elements(validity)]
    if len(times) != 2:
        raise ValueError("not a certificate: its validity has not two times")
    return times[0], times[1]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element in turn (X.690, 8.1; definite lengths only, as in DER)."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            if not 0 < count <= 4:
                raise ValueError("not DER: a length of no definite form")
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("not DER: it ends too early")
        yield tag, data[at : at + size]
        at += size


def _moment(tag: int, text: bytes) -> float:
    if tag == _UTC_TIME:
        text = (b"19" if text[:2].isdigit() and int(text[:2]) >= _FIRST_YEAR else b"20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a certificate: its validity is no time")
    found = _TIME.match(text)
    if found is None:
        raise ValueError(f"a time that is not of the form YYYYMMDDHHMMSSZ: {text!r}")
    year, month, day, hour, minute, second = map(int, found.groups())
    moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)
    return moment.timestamp()
