"""The answer to calls of methods that a listener does not serve."""

from __future__ import annotations

from konnectivity.net.grpc import Call
from konnectivity.wire import grpc


def unimplemented(call: Call, own_path: str) -> None:
    """Refuse a call of another method, in the words of grpc-go."""
    service, _, method = call.path.lstrip("/").partition("/")
    own_service = own_path.lstrip("/").partition("/")[0]
    if service == own_service:
        text = f"unknown method {method} for service {service}"
    else:
        text = f"unknown service {service}"
    call.refuse(grpc.UNIMPLEMENTED, text)
