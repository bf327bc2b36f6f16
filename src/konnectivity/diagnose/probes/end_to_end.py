"""Dials through a server's frontend, as kube-apiserver makes them: to kubelets, webhooks, services.

Bounded in number and in time. Where TLS is spoken there, a handshake shows that bytes come back;
nothing is asked of the endpoint.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from konnectivity.client import grpc, http_connect
from konnectivity.diagnose.case import TargetDial
from konnectivity.diagnose.checks.targets import backends
from konnectivity.diagnose.surroundings import Surroundings, labels_of, mappings
from konnectivity.errors import DialError
from konnectivity.gotext import one_line
from konnectivity.net import handshake
from konnectivity.net.address import join_host_port

LIMIT: Final = 10.0
"""Seconds for one dial with its handshake: agents give up after 5."""
AT_ONCE: Final = 8
MOST_KUBELETS: Final = 100
MOST_OTHERS: Final = 100
READ: Final = 64 << 10
KUBELET_PORT: Final = 10250


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to dial. `tls`: a handshake follows; `ca` and `name` are checked if given."""

    kind: str
    name: str
    address: str
    tls: bool = True
    ca: str = ""
    server_name: str = ""


async def dial_all(targets: Sequence[Target], *, frontend: str, mode: str) -> list[TargetDial]:
    """All dials, some at once, in the order of `targets`. `frontend` is a Unix socket's path."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(target: Target) -> TargetDial:
        async with turns:
            return await _dial(target, frontend, mode)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(each)) for each in targets]
    return [each.result() for each in tasks]


async def _dial(target: Target, frontend: str, mode: str) -> TargetDial:
    started = time.monotonic()
    stage, error = "frontend", ""
    try:
        async with asyncio.timeout(LIMIT):
            stage = "dial"
            reader, writer = await _open(frontend, target.address, mode)
            try:
                if target.tls:
                    stage = "tls"
                    await _shake_hands(reader, writer, target)
            finally:
                with contextlib.suppress(OSError):
                    writer.transport.abort()
    except TimeoutError:
        error = f"timed out after {LIMIT:g} s"
    except DialError as fault:
        error = str(fault)
        stage = "frontend" if fault.reason == "unreachable" and frontend in error else stage
    except (ssl.SSLError, ConnectionError) as fault:
        error = handshake.explain(fault)
    except OSError as fault:  # of the frontend's own socket
        stage, error = "frontend", f"{frontend}: {fault.strerror or fault}"
    return TargetDial(
        kind=target.kind,
        name=target.name,
        address=target.address,
        frontend=frontend,
        stage=stage if error else "",
        error=one_line(error),
        seconds=time.monotonic() - started,
    )


async def _open(
    frontend: str, address: str, mode: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if mode == "grpc":
        return await grpc.dial(frontend, address)
    return await http_connect.dial(frontend, address)


async def _shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target
) -> None:
    """TLS inside a tunnel, fed by hand: event loops do it on transports of their own only.

    Raises:
        OSError: also ssl.SSLError.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    name = target.server_name or None
    session = _context(target).wrap_bio(incoming, outgoing, server_hostname=name)
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            received = await reader.read(READ)
            if not received:
                raise ConnectionResetError("the tunnel ended in the handshake") from None
            incoming.write(received)
        else:
            return


def _context(target: Target) -> ssl.SSLContext:
    """Checks what the target's configuration checks; without a CA, that TLS is spoken at all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if target.ca:
        context.load_verify_locations(cadata=target.ca)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def targets_of(around: Surroundings) -> list[Target]:
    """What kube-apiserver reaches through the tunnel, as the cluster's objects say."""
    nodes = list(kubelets(around.of("Node")))[:MOST_KUBELETS]
    others = [*_services(around), *called(around)][:MOST_OTHERS]
    return [*others, *nodes]


def kubelets(nodes: Iterable[Mapping[str, Any]]) -> Iterator[Target]:
    """The kubelet of each node, at the address that kube-apiserver prefers."""
    for node in nodes:
        status = node.get("status") or {}
        addresses = {
            each.get("type"): str(each.get("address")) for each in mappings(status.get("addresses"))
        }
        host = addresses.get("InternalIP") or addresses.get("Hostname")
        endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
        port = endpoint.get("Port") or KUBELET_PORT
        if host:
            name = str(node["metadata"]["name"])
            yield Target(kind="kubelet", name=name, address=join_host_port(host, int(port)))


def _services(around: Surroundings) -> Iterator[Target]:
    """The API's own service, and one pod of the cluster's DNS."""
    address = cluster_ip(around, "default", "kubernetes")
    if address:
        yield Target(
            kind="service",
            name="default/kubernetes",
            address=join_host_port(address, 443),
            tls=False,
        )
    for item in around.of("EndpointSlice"):
        if labels_of(item).get("kubernetes.io/service-name") != "kube-dns":
            continue
        for endpoint in mappings(item.get("endpoints")):
            for host in endpoint.get("addresses") or ():
                address = join_host_port(str(host), 53)
                yield Target(kind="pod", name="kube-dns", address=address, tls=False)
                return


def called(around: Surroundings) -> Iterator[Target]:
    """Webhooks and API services, at the addresses of their services."""
    for kind, name, reference, bundle in backends(around):
        namespace, service = str(reference.get("namespace")), str(reference.get("name"))
        host = cluster_ip(around, namespace, service)
        if not host:
            continue
        target = Target(
            kind=kind, name=name, address=join_host_port(host, int(reference.get("port") or 443))
        )
        yield replace(target, ca=authorities(bundle), server_name=f"{service}.{namespace}.svc")


def cluster_ip(around: Surroundings, namespace: str, name: str) -> str:
    """The address of a service; empty for one that has none."""
    service = around.named("Service", name, namespace)
    address = str(((service or {}).get("spec") or {}).get("clusterIP") or "")
    return "" if address == "None" else address


def authorities(bundle: str) -> str:
    """A CA bundle as configurations have it; empty if it is none."""
    with contextlib.suppress(binascii.Error, ValueError):
        text = base64.b64decode(bundle, validate=True).decode("ascii")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with contextlib.suppress(ssl.SSLError):
            context.load_verify_locations(cadata=text)
            return text
    return ""
