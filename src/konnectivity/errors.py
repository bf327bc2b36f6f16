"""Every error this package raises, in one tree.

    KonnectivityError
      ConfigError            a flag or a file: which, its value, what would be right
      WireError              bytes from the peer are wrong
        PacketError          a Konnectivity packet does not decode
        Http2Error           carries the HTTP/2 error code that goes on the wire
          ConnectionFault    the whole connection must end (GOAWAY)
          StreamFault        one stream must end (RST_STREAM)
        Http1Error           carries the HTTP status of the answer
      RpcError               a gRPC call ended with a status other than OK
      AuthenticationError    a peer could not show that it is who it must be
      DialError              an endpoint could not be reached; the text is Go's
      LinkError              the connection between agent and server failed, with the stage
      CertificateError       certificates cannot be made or kept as asked; those there are stay
        DirectoryBusy        somebody else is just changing them
      ClusterError           a cluster cannot be brought into the state that was asked for

`str()` of each is one line that a tired operator can act on.
"""

from __future__ import annotations


class KonnectivityError(Exception):
    """Root of all errors of this package."""


class ConfigError(KonnectivityError):
    """A flag, a file or an address that the user gave is wrong; nothing was started."""


class WireError(KonnectivityError):
    """The peer sent bytes that the protocol does not allow."""


class PacketError(WireError):
    """A message is not a Konnectivity `Packet`."""


class Http2Error(WireError):
    """A breach of RFC 9113. `code` is the error code for the wire (section 7)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ConnectionFault(Http2Error):
    """The connection cannot go on: answer with GOAWAY and close."""


class StreamFault(Http2Error):
    """One stream cannot go on: answer with RST_STREAM, the others are unharmed."""

    def __init__(self, stream_id: int, code: int, message: str) -> None:
        super().__init__(code, message)
        self.stream_id = stream_id


class Http1Error(WireError):
    """An HTTP/1 head is malformed or too large. `status` is the answer's status code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RpcError(KonnectivityError):
    """A gRPC call ended with `code` (int, not OK) and the peer's `message`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} (gRPC code {code})")
        self.code = code
        self.message = message


class AuthenticationError(KonnectivityError):
    """A peer could not show that it is who it must be. `str()` is what the peer is told.

    `outcome` is the short word for metrics: `no_token`, `rejected`, `expired`, `audience`,
    `account`, `certificate`, `node`, `unavailable`, `overload`.
    """

    def __init__(self, message: str, outcome: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class DialError(KonnectivityError):
    """An endpoint could not be reached.

    `str()` is the text that Go's dialer would give, because upstream's server maps its
    substrings to HTTP statuses. `reason` is the short word for metrics: `timeout`, `refused`,
    `dns`, `unreachable`, `invalid`, `limit`, `policy`, `unknown`.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class LinkError(KonnectivityError):
    """The agent's connection to a server failed.

    `stage` says how far it came: `name`, `tcp`, `proxy`, `tls`, `alpn`, `http2`, `stream`,
    `headers`.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


class CertificateError(KonnectivityError):
    """Certificates cannot be made, kept or rotated as asked; the files in use are as they were."""


class DirectoryBusy(CertificateError):
    """Somebody else is just changing a directory of certificates."""


class ClusterError(KonnectivityError):
    """A cluster cannot be brought into the state that was asked for; what is in the way is said."""
