"""Programs that cannot start say why in one line and leave nothing open: W31, W32."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import StartAgent, StartServer
from tests.e2e.test_scenarios import get
from tests.net.authority import Authority, Identity
from tests.peers.leaks import descriptors
from tests.peers.ports import free_port
from tests.peers.program import Program, flags, running

from konnectivity.errors import ConfigError

MISUSED = 2


async def complaint(program: Program) -> str:
    """The one line with which a program gives up, before it has exit status 2."""
    assert await program.status() == MISUSED
    errors = [line for line in program.lines if line.startswith("Error: ")]
    assert len(errors) == 1, program.lines
    assert "Traceback" not in "".join(program.lines)
    return errors[0]


async def cannot_start(start: StartServer | StartAgent, **options: Any) -> str:
    """The error of a program that must not start, and must close what it had opened."""
    before = len(descriptors())
    with pytest.raises(ConfigError) as caught:
        await start(**options)
    assert len(descriptors()) == before
    text = str(caught.value)
    assert "\n" not in text
    return text


def exists(path: str) -> bool:
    return Path(path).exists()


# Unix sockets


async def test_w31_a_path_that_is_too_long_is_named_with_the_limit(
    start_server: StartServer, folder: Path
) -> None:
    path = str(folder / ("x" * 120))
    text = await cannot_start(start_server, uds_name=path)
    assert path in text
    assert "107 bytes" in text


async def test_w31_a_path_in_a_directory_that_is_missing_is_named(
    start_server: StartServer, folder: Path
) -> None:
    path = str(folder / "missing" / "s.sock")
    text = await cannot_start(start_server, uds_name=path)
    assert path in text
    assert "the directory must exist" in text


async def test_w31_a_path_that_is_another_kind_of_file_is_refused_and_left_alone(
    start_server: StartServer, folder: Path
) -> None:
    path = folder / "precious"
    path.write_text("do not delete")
    text = await cannot_start(start_server, uds_name=str(path))
    assert f"{path}: it exists and is not a socket" in text
    assert path.read_text() == "do not delete"


async def test_w31_a_path_on_which_another_process_listens_is_refused(
    start_server: StartServer, folder: Path
) -> None:
    path = str(folder / "busy.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        text = await cannot_start(start_server, uds_name=path)
        assert "another process listens there" in text


async def test_w31_a_left_over_socket_is_removed_or_named(
    start_server: StartServer, folder: Path
) -> None:
    path = str(folder / "left.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
    text = await cannot_start(start_server, uds_name=path, delete_existing_uds_file=False)
    assert "--delete-existing-uds-file" in text
    server = await start_server(uds_name=path)
    await server.stop()
    assert not exists(path)


async def test_w31_the_http_connect_program_exits_with_one_line(
    server_options: dict[str, Any], folder: Path
) -> None:
    options = server_options | {"mode": "http-connect", "uds_name": str(folder / ("x" * 120))}
    async with running("server", *flags(**options)) as program:
        assert "the path of a Unix socket has 1 to 107 bytes" in await complaint(program)


# TCP ports


@pytest.mark.parametrize("flag", ["agent_port", "admin_port", "health_port"])
async def test_w32_a_taken_port_of_the_server_is_named(
    flag: str, start_server: StartServer, server_options: dict[str, Any]
) -> None:
    port = server_options[flag]
    with socket.create_server(("127.0.0.1", port)):
        text = await cannot_start(start_server)
    name = f"--{flag.replace('_', '-')}"
    assert text.startswith(f"{name}: cannot listen on 127.0.0.1:{port}: address already in use")
    assert not exists(server_options["uds_name"])


async def test_all_that_keeps_a_server_from_starting_is_said_at_once(
    start_server: StartServer, server_options: dict[str, Any], folder: Path
) -> None:
    with (
        socket.create_server(("127.0.0.1", server_options["agent_port"])),
        socket.create_server(("127.0.0.1", server_options["health_port"])),
    ):
        text = await cannot_start(start_server, uds_name=str(folder / "missing" / "s.sock"))
    assert "the directory must exist" in text
    assert "--agent-port: cannot listen" in text
    assert "--health-port: cannot listen" in text
    text = await cannot_start(
        start_server, cluster_cert=str(folder / "gone"), uds_name=str(folder / ("x" * 120))
    )
    assert str(folder / "gone") in text
    assert "107 bytes" in text


@pytest.mark.parametrize("mode", ["grpc", "http-connect"])
async def test_w32_a_taken_frontend_port_is_named(
    mode: str, start_server: StartServer, authority: Authority, identity: Identity
) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        text = await cannot_start(
            start_server,
            mode=mode,
            uds_name="",
            server_port=port,
            server_bind_address="127.0.0.1",
            server_cert=identity.cert,
            server_key=identity.key,
            server_ca_cert=authority.bundle,
        )
    assert f"127.0.0.1:{port}: address already in use" in text


@pytest.mark.parametrize("flag", ["health_server_port", "admin_server_port"])
async def test_w32_a_taken_port_of_the_agent_is_named(
    flag: str, start_agent: StartAgent, agent_options: dict[str, Any]
) -> None:
    port = agent_options[flag]
    with socket.create_server(("127.0.0.1", port)):
        text = await cannot_start(start_agent)
    name = f"--{flag.replace('_', '-')}"
    assert text.startswith(f"{name}: cannot listen on 127.0.0.1:{port}: address already in use")


@pytest.mark.parametrize("program", ["server", "agent"])
async def test_w32_the_programs_exit_with_one_line(
    program: str, server_options: dict[str, Any], agent_options: dict[str, Any]
) -> None:
    options = server_options if program == "server" else agent_options
    options = {name: value for name, value in options.items() if "sync" not in name}
    port = options["health_port" if program == "server" else "health_server_port"]
    with socket.create_server(("127.0.0.1", port)):
        async with running(program, *flags(**options)) as process:
            assert f"127.0.0.1:{port}: address already in use" in await complaint(process)


async def test_an_address_of_another_machine_is_named(start_server: StartServer) -> None:
    text = await cannot_start(start_server, agent_bind_address="192.0.2.1")
    assert "192.0.2.1" in text
    assert "it must be an address of this machine" in text


# Certificate files


async def test_files_that_are_no_certificates_are_named(
    start_server: StartServer,
    start_agent: StartAgent,
    authority: Authority,
    identity: Identity,
    folder: Path,
) -> None:
    empty = folder / "empty.pem"
    empty.write_text("nothing in it\n")
    other = authority.issue("localhost")
    for start, options, wanted in (
        (start_server, {"cluster_cert": str(empty)}, "no PEM block of a certificate"),
        (start_server, {"cluster_key": str(empty)}, "no PEM block of a private key"),
        (start_server, {"cluster_key": other.key}, "does not belong to certificate"),
        (start_server, {"cluster_ca_cert": str(empty)}, "no PEM block of a certificate"),
        (start_agent, {"ca_cert": str(empty)}, "no PEM block of a certificate"),
        (start_agent, {"ca_cert": str(folder / "gone")}, "no such file"),
        (start_agent, {"agent_key": other.key}, f"does not belong to certificate {identity.cert}"),
    ):
        text = await cannot_start(start, **options)
        assert wanted in text
        assert next(iter(options.values())) in text


# What must not keep a program from starting


async def test_w42_labels_of_leases_are_judged_before_anything_opens_and_only_if_they_count(
    server_options: dict[str, Any], folder: Path
) -> None:
    flags_of_leases = flags(**server_options, lease_label="no pair")
    async with running("server", *flags_of_leases, "--enable-lease-controller") as program:
        assert await program.status() == MISUSED
        assert "invalid label format: no pair" in "".join(program.lines)
        assert "Listening" not in "".join(program.lines)
    async with running("server", *flags_of_leases) as program:
        await program.line("Server is up")


async def test_w41_an_agent_whose_kubernetes_api_is_away_starts_answers_and_connects(
    start_server: StartServer, agent_options: dict[str, Any], folder: Path
) -> None:
    server = await start_server()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG.format(port=free_port()))
    options = agent_options | {"sync_interval": "100ms", "sync_interval_cap": "1s"}
    leases = ["--count-server-leases", f"--kubeconfig={kubeconfig}"]
    async with running("agent", *flags(**options), *leases) as agent:
        await agent.line("Agent is up")
        assert (await get(options["health_server_port"], "/healthz"))[0] == 200
        await agent.line("Connected to a server")
        assert len(server.exchange.backends) == 1


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: away
contexts: [{{name: away, context: {{cluster: away, user: nobody}}}}]
clusters: [{{name: away, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: nobody, user: {{token: t}}}}]
"""


# Programs that do start


async def test_the_programs_start_connect_and_end_as_asked(
    server_options: dict[str, Any], agent_options: dict[str, Any]
) -> None:
    options = agent_options | {"sync_interval": "100ms", "sync_interval_cap": "1s"}
    async with (
        running("server", *flags(**server_options)) as server,
        running("agent", *flags(**options)) as agent,
    ):
        await agent.line("Connected to a server")
        await server.line("Agent connected")
        agent.signal(signal.SIGTERM)
        await agent.line("Draining")
        agent.signal(signal.SIGTERM)
        assert await agent.status() == 0
        await server.line("Agent disconnected")
        server.signal(signal.SIGINT)
        assert await server.status() == 0
        assert not exists(server_options["uds_name"])
    assert "Traceback" not in "".join(server.lines + agent.lines)
