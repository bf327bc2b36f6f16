"""Faults of routes, name servers and path MTUs, made in network namespaces of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.diagnose.faults.doctor import Diagnosis, command
from tests.net.authority import Authority

from konnectivity.demo.network import find_isolation

WIRE = """
ip link set lo up
unshare --net sh -c 'ip link set lo up; echo up; exec sleep 60' >{folder}/up &
far=$!
until grep -qs up {folder}/up; do :; done
ip link add near type veth peer name far netns $far
ip address add 192.0.2.1/30 dev near
ip link set near up
nsenter --net=/proc/$far/ns/net sh -c 'ip address add 192.0.2.2/30 dev far; ip link set far up'
"""
"""A wire to 192.0.2.2, in a namespace of its own."""

NAME_SERVER = """
import socket, sys
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.bind(("127.0.0.1", 53))
print("up", flush=True)
while True:
    question, sender = door.recvfrom(4096)
    door.sendto(question[:2] + bytes.fromhex(sys.argv[1]) + question[4:], sender)
"""
"""Answers every question with the same flags, and no records."""
NO_SUCH_NAME, FAILURE = "8183", "8182"

TLS_SERVER = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
context.set_alpn_protocols(["h2"])
door = socket.create_server(("192.0.2.2", 8091))
print("up", flush=True)
while True:
    sock, _ = door.accept()
    try:
        secured = context.wrap_socket(sock, server_side=True)
        secured.sendall(bytes.fromhex("000000040000000000"))
        secured.recv(4096)
    except OSError:
        pass
"""


@pytest.fixture
def isolated() -> list[str]:
    """What goes before a command that is to have a network of its own, and all it starts."""
    isolation = find_isolation()
    if isolation.kind == "loopback":
        pytest.skip(f"this machine allows no network namespace: {isolation.reason}")
    user = ["--user", "--map-root-user"] if isolation.kind == "user" else []
    return [
        "unshare",
        *user,
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        "--",
    ]


async def run(isolated: list[str], script: str, *argv: str) -> Diagnosis:
    """`doctor --pre -o json` in a new network, after `script`."""
    enter = [*isolated, "sh", "-e", "-c", f'{script}\n"$@"', "sh"]
    _, out, err = await command("--pre", "--timeout=1s", "-o", "json", *argv, enter=enter)
    assert not err
    return Diagnosis(json.loads(out))


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ("", "unreachable: there is no route"),
        ("ip route add unreachable 198.51.100.7", "unreachable: there is no route"),
        ("ip route add prohibit 198.51.100.7", "prohibited: the node itself forbids it"),
        ("ip route add blackhole 198.51.100.7", "prohibited: the node itself forbids it"),
    ],
)
async def test_routes_that_lead_nowhere(isolated: list[str], route: str, words: str) -> None:
    found = await run(isolated, route, "--target=198.51.100.7:8091")
    assert found.codes == {"KNC302"}
    assert found.finding("KNC302")["evidence"].startswith(words)


async def test_a_network_that_drops_packets(isolated: list[str], tmp_path: Path) -> None:
    gone = "nsenter --net=/proc/$far/ns/net ip address del 192.0.2.2/30 dev far\n"
    known = "ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev near"
    script = WIRE.format(folder=tmp_path) + gone + known
    found = await run(isolated, script, "--target=192.0.2.2:8091")
    assert found.codes == {"KNC302"}
    assert found.finding("KNC302")["evidence"].startswith("timed out")


@pytest.mark.parametrize(
    ("flags", "words"),
    [(NO_SUCH_NAME, "has no address"), (FAILURE, "no name server answered")],
)
async def test_name_servers_that_do_not_know(
    isolated: list[str], tmp_path: Path, flags: str, words: str
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions attempts:1 timeout:1\n")
    script = (
        f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf; ip link set lo up\n"
        f"{sys.executable} -c '{NAME_SERVER}' {flags} >{tmp_path}/up &\n"
        f"until grep -qs up {tmp_path}/up; do :; done\n"
    )
    found = await run(isolated, script, "--target=konnectivity.example.com:8091")
    assert found.codes == {"KNC301"}
    assert words in found.finding("KNC301")["evidence"]


@pytest.mark.parametrize("blind", [True, False], ids=["black hole", "sound"])
async def test_a_path_that_loses_large_packets(
    isolated: list[str], tmp_path: Path, authority: Authority, blind: bool
) -> None:
    made: Any = authority.issue("192.0.2.2", *(f"name-{n}.example.com" for n in range(60)))
    script = WIRE.format(folder=tmp_path)
    if blind:
        # The far end is not told of the small MTU, and its packets are dropped at the wire's end.
        script += (
            "nsenter --net=/proc/$far/ns/net ip link set far gso_max_segs 1\n"
            "ip link set near mtu 700\n"
            "ip route replace 192.0.2.0/30 dev near advmss 1460\n"
        )
    script += (
        f"nsenter --net=/proc/$far/ns/net {sys.executable} -c '{TLS_SERVER}' "
        f"{made.cert} {made.key} >{tmp_path}/serving &\n"
        f"until grep -qs up {tmp_path}/serving; do :; done\n"
    )
    found = await run(isolated, script, "--target=192.0.2.2:8091", f"--ca-cert={authority.bundle}")
    assert found.codes == ({"KNC304"} if blind else set())
    if blind:
        assert "536 bytes" in found.finding("KNC304")["evidence"]
