"""Faults on the way from a node to a server, found before anything is installed (`--pre`)."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.diagnose.faults import listeners
from tests.diagnose.faults.doctor import Diagnosis, diagnose
from tests.e2e.conftest import StartServer
from tests.net.authority import Authority, Identity
from tests.peers.connect_proxy import ConnectProxy
from tests.peers.ports import free_port


async def pre(port: int, authority: Authority, *flags: str, **environ: str) -> Diagnosis:
    """A run from here to a port of this machine, by name."""
    target = f"--target=localhost:{port}"
    ca = f"--ca-cert={authority.bundle}"
    return await diagnose("--pre", target, ca, "--timeout=1s", *flags, environ=environ)


async def test_a_server_that_is_there_is_healthy(
    start_server: StartServer, authority: Authority, identity: Identity
) -> None:
    server = await start_server()
    own = (f"--agent-cert={identity.cert}", f"--agent-key={identity.key}")
    found = await pre(server.options.agent_port, authority, *own)
    assert (found.codes, found.status) == (set(), 0)


async def test_a_server_that_asks_for_certificates_is_healthy_without_one(
    start_server: StartServer, authority: Authority
) -> None:
    server = await start_server()
    found = await pre(server.options.agent_port, authority)
    assert (found.codes, found.status) == (set(), 0)


async def test_a_closed_port_is_refused(authority: Authority) -> None:
    found = await pre(free_port(), authority)
    assert (found.codes, found.status) == ({"KNC302"}, 2)
    assert found.finding("KNC302")["evidence"].startswith("refused: nothing listens there")
    assert found.skipped["KNC203"] == ["KNC302"]


async def test_packets_that_are_dropped_time_out(authority: Authority) -> None:
    with listeners.dropping() as port:
        found = await pre(port, authority)
    assert found.codes == {"KNC302"}
    assert found.finding("KNC302")["evidence"].startswith("timed out: packets are dropped")


async def test_a_reset_is_told_from_a_refusal(authority: Authority) -> None:
    async with listeners.listening(listeners.reset) as port:
        found = await pre(port, authority)
    assert found.codes == {"KNC302"}
    assert found.finding("KNC302")["evidence"].startswith("reset: the connection is made")


async def test_a_name_that_does_not_exist() -> None:
    found = await diagnose("--pre", "--target=konnectivity.invalid", "--timeout=5s")
    assert found.codes == {"KNC301"}
    assert found.skipped["KNC302"] == ["KNC301"]


async def test_a_proxy_that_refuses(authority: Authority) -> None:
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    async with ConnectProxy({}, answer=refusal) as proxy:
        found = await diagnose(
            "--pre",
            "--target=konnectivity.example.com",
            "--timeout=1s",
            environ={"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"},
        )
    assert found.codes == {"KNC303"}
    assert "answered 403 Forbidden" in found.text("KNC303")
    assert "add konnectivity.example.com to NO_PROXY" in found.text("KNC303")


async def test_a_proxy_that_is_not_there() -> None:
    environ = {"HTTPS_PROXY": f"http://127.0.0.1:{free_port()}"}
    found = await diagnose("--pre", "--target=konnectivity.example.com", environ=environ)
    assert found.codes == {"KNC303"}
    assert "cannot be reached" in found.finding("KNC303")["evidence"]


async def test_plain_http_in_the_way(authority: Authority) -> None:
    async with listeners.listening(listeners.speak_http) as port:
        found = await pre(port, authority)
    assert found.codes == {"KNC205"}
    assert "'HTTP/1.1 400 Bad Request'" in found.finding("KNC205")["evidence"]


async def test_another_service_on_the_port(authority: Authority) -> None:
    async with listeners.listening(listeners.speak_ssh) as port:
        found = await pre(port, authority)
    assert found.codes == {"KNC205"}
    assert "does not speak TLS" in found.finding("KNC205")["evidence"]


async def test_a_proxy_that_takes_tls_apart(authority: Authority, folder: Path) -> None:
    context = listeners.intercepting(folder)
    async with listeners.listening(listeners.stay_silent, tls=context) as port:
        found = await pre(port, authority)
    assert found.codes == {"KNC205"}
    evidence = found.finding("KNC205")["evidence"]
    assert evidence.startswith("TLS is intercepted")
    assert "Inspection Ltd" in evidence


async def test_a_balancer_without_http2(authority: Authority, identity: Identity) -> None:
    context = listeners.serving(identity.cert, identity.key, alpn="http/1.1")
    async with listeners.listening(listeners.stay_silent, tls=context) as port:
        found = await pre(port, authority)
    assert found.codes == {"KNC205"}
    assert "HTTP/2 is not agreed on" in found.finding("KNC205")["evidence"]


async def test_silence_behind_an_open_port(authority: Authority) -> None:
    async with listeners.listening(listeners.stay_silent) as port:
        found = await pre(port, authority)
    assert found.codes == {"KNC205"}
    assert "says nothing" in found.finding("KNC205")["evidence"]


async def test_a_server_of_another_ca(authority: Authority, stranger: Authority) -> None:
    other = stranger.issue("localhost", "127.0.0.1")
    context = listeners.serving(other.cert, other.key)
    async with listeners.listening(listeners.stay_silent, tls=context) as port:
        found = await pre(port, authority)
    assert found.codes == {"KNC203"}
    assert "a CA that the agent does not trust" in found.finding("KNC203")["evidence"]


@pytest.mark.parametrize(
    ("kind", "words"), [("expired", "has expired"), ("future", "is not valid yet")]
)
async def test_a_certificate_out_of_its_time(authority: Authority, kind: str, words: str) -> None:
    made = getattr(authority, kind)("localhost", "127.0.0.1")
    context = listeners.serving(made.cert, made.key)
    async with listeners.listening(listeners.stay_silent, tls=context) as port:
        found = await pre(port, authority)
    assert found.codes == {"KNC203"}
    assert words in found.finding("KNC203")["evidence"]


async def test_a_certificate_of_another_name(authority: Authority) -> None:
    made = authority.issue("konnectivity.example.com")
    context = listeners.serving(made.cert, made.key)
    async with listeners.listening(listeners.stay_silent, tls=context) as port:
        found = await pre(port, authority)
    assert found.codes == {"KNC203"}
    assert "does not have the name" in found.finding("KNC203")["evidence"]


async def test_a_certificate_of_ours_that_the_server_refuses(
    start_server: StartServer, authority: Authority, stranger: Authority
) -> None:
    server = await start_server()
    own = stranger.issue("agent")
    flags = (f"--agent-cert={own.cert}", f"--agent-key={own.key}")
    found = await pre(server.options.agent_port, authority, *flags)
    assert found.codes == {"KNC203"}
    assert "does not accept the agent's certificate" in found.finding("KNC203")["evidence"]


@asynccontextmanager
async def time_server(ahead: float) -> AsyncIterator[int]:
    """An NTP server whose clock is `ahead` seconds ahead of ours."""

    class Answering(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            now = int(time.time() + ahead) + 2_208_988_800
            self.transport.sendto(struct.pack("!B39x2I", 0x24, now, 0), address)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Answering, local_addr=("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.abort()
        await asyncio.sleep(0.01)


async def test_a_clock_that_is_wrong(start_server: StartServer, authority: Authority) -> None:
    server = await start_server()
    async with time_server(600) as port:
        found = await pre(server.options.agent_port, authority, f"--ntp-server=127.0.0.1:{port}")
    assert (found.codes, found.status) == ({"KNC603"}, 2)
    evidence = found.finding("KNC603")["evidence"]
    assert "s ahead of ours" in evidence


async def test_a_clock_that_is_right(start_server: StartServer, authority: Authority) -> None:
    server = await start_server()
    async with time_server(0) as port:
        found = await pre(server.options.agent_port, authority, f"--ntp-server=127.0.0.1:{port}")
    assert found.codes == set()


def token(**claims: Any) -> str:
    """A JSON web token that nobody has signed."""
    parts = [json.dumps(each).encode() for each in ({"alg": "none"}, claims)]
    encoded = [base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts]
    return ".".join([*encoded, "x"])


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp": 1_000_000_000, "aud": ["system:konnectivity-server"]}, "has expired"),
        ({"exp": 9_999_999_999, "aud": ["https://kubernetes.default.svc"]}, "another audience"),
    ],
)
async def test_a_token_that_no_server_accepts(
    start_server: StartServer,
    authority: Authority,
    folder: Path,
    claims: dict[str, Any],
    words: str,
) -> None:
    server = await start_server()
    file = folder / "token"
    file.write_text(token(**claims))
    found = await pre(server.options.agent_port, authority, f"--token-file={file}")
    assert found.codes == {"KNC204"}
    assert words in found.finding("KNC204")["evidence"]
    assert file.read_text() not in json.dumps(found.document)
