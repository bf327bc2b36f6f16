"""The load generator tells the truth: against the loopback, and through small tunnels made here."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from bench.error import BenchError
from bench.report import Outcome, outcomes
from bench.run import Taken
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bench import generator, row

ROOT = Path(__file__).parents[2]
QUICK = ("--seconds=0.2", "--warmup=0.05")
DIAL_RSP, CLOSE_REQ, CLOSE_RSP, DATA = 1, 2, 3, 4

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))),
    reason="NO C COMPILER: the load generator is not tested",
)

Relay = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def program() -> Path:
    return generator.build()


@pytest.fixture
def uds(tmp_path: Path) -> Path:
    return tmp_path / "frontend.sock"


def packet_class() -> Any:
    """Upstream's `Packet` as far as a tunnel needs it, by the protobuf library."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="tunnel.proto", syntax="proto3")

    def message(name: str, *fields: tuple[int, str, int | str]) -> None:
        added = file.message_type.add(name=name)
        for number, label, kind in fields:
            one = added.field.add(name=label, number=number, label=field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                one.type, one.type_name = field.TYPE_MESSAGE, f".{kind}"
            else:
                one.type = kind

    text, number = field.TYPE_STRING, field.TYPE_INT64
    message("DialRequest", (1, "protocol", text), (2, "address", text), (3, "random", number))
    message("DialResponse", (1, "error", text), (2, "connectID", number), (3, "random", number))
    message("Close", (1, "error", text), (2, "connectID", number))
    message("Data", (1, "connectID", number), (2, "error", text), (3, "data", field.TYPE_BYTES))
    message(
        "Packet",
        (1, "type", field.TYPE_INT32),
        (2, "dialRequest", "DialRequest"),
        (3, "dialResponse", "DialResponse"),
        (4, "data", "Data"),
        (6, "closeResponse", "Close"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Packet"))


Packet = packet_class()


async def grpc_tunnel(_: Any, context: Any) -> None:
    """Be server and agent of one tunnel in grpcio's words: packets of at most 4096 bytes down."""
    dial = Packet.FromString(await context.read()).dialRequest
    host, _, port = dial.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await context.write(
        Packet(
            type=DIAL_RSP, dialResponse={"connectID": 7, "random": dial.random}
        ).SerializeToString()
    )

    async def down() -> None:
        # Ended by the endpoint's end of file: a cancelled write would stay under way in grpcio.
        while (data := await reader.read(4096)) and not writer.is_closing():
            packet = Packet(type=DATA, data={"connectID": 7, "data": data})
            await context.write(packet.SerializeToString())

    downward = asyncio.create_task(down())
    while (message := await context.read()) is not grpc.aio.EOF:
        packet = Packet.FromString(message)
        if packet.type == CLOSE_REQ:
            break
        writer.write(packet.data.data)
        await writer.drain()
    writer.close()
    await downward
    await context.write(Packet(type=CLOSE_RSP, closeResponse={"connectID": 7}).SerializeToString())


async def refusing_grpc_tunnel(_: Any, context: Any) -> None:
    dial = Packet.FromString(await context.read()).dialRequest
    answer = Packet(
        type=DIAL_RSP, dialResponse={"error": "No agent available", "random": dial.random}
    )
    await context.write(answer.SerializeToString())


@asynccontextmanager
async def grpc_server(uds: Path, tunnel: Callable[..., Any]) -> AsyncIterator[None]:
    server = grpc.aio.server()
    methods = {"Proxy": grpc.stream_stream_rpc_method_handler(tunnel)}
    handler = grpc.method_handlers_generic_handler("ProxyService", methods)
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{uds}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(grace=None)


def relay_to(
    port: int | None = None, spoil: Callable[[bytes], bytes] = bytes, *, greeting: bytes = b""
) -> Relay:
    """Make a relay to `port`, or to where a CONNECT says, that says `greeting` first.

    It passes what comes from the endpoint through `spoil`.
    """

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Any) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(change(data))
                await writer.drain()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = port
        if target is None:
            head = await reader.readuntil(b"\r\n\r\n")
            target = int(head.split()[1].rpartition(b":")[2])
        there, back = await asyncio.open_connection("127.0.0.1", target)
        writer.write(greeting)
        ways = [
            asyncio.create_task(copy(reader, back, bytes)),
            asyncio.create_task(copy(there, writer, spoil)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        back.transport.abort()

    return relay


def relay_through(spoil: Callable[[bytes], bytes] = bytes) -> Relay:
    """Make an http-connect tunnel."""
    return relay_to(spoil=spoil, greeting=b"HTTP/1.1 200 Connection Established\r\n\r\n")


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
    await writer.drain()


@asynccontextmanager
async def connect_server(uds: Path, relay: Relay) -> AsyncIterator[None]:
    """Serve http-connect with `relay`; all its connections have ended when this has."""
    relays: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.add(asyncio.current_task())  # type: ignore[arg-type]  # this is a task
        try:
            await relay(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_unix_server(serve, uds):
        yield
        await asyncio.wait_for(asyncio.gather(*relays, return_exceptions=True), 10)


async def load(program: Path, *arguments: str) -> generator.Report:
    return await asyncio.to_thread(generator.run, program, [*QUICK, *arguments])


WORK = {
    "--downloads=2": "download_bytes",
    "--uploads=2": "upload_bytes",
    "--echoes=8": "echoes",
    "--dialers=4": "dials",
}


@pytest.mark.parametrize(("work", "figure"), WORK.items())
async def test_direct_work_is_counted_without_errors(program: Path, work: str, figure: str) -> None:
    report = await load(program, "--mode=direct", work)
    assert report["first_error"] == ""
    assert report[figure] > 0


@pytest.mark.parametrize(("work", "figure"), WORK.items())
async def test_work_through_http_connect_is_counted_without_errors(
    program: Path, uds: Path, work: str, figure: str
) -> None:
    async with connect_server(uds, relay_through()):
        report = await load(program, "--mode=http-connect", f"--uds={uds}", work)
    assert report["first_error"] == ""
    assert report[figure] > 0


@pytest.mark.parametrize(("work", "figure"), WORK.items())
async def test_work_through_grpcio_is_counted_without_errors(
    program: Path, uds: Path, work: str, figure: str
) -> None:
    async with grpc_server(uds, grpc_tunnel):
        report = await load(program, "--mode=grpc", f"--uds={uds}", work)
    assert report["first_error"] == ""
    assert report[figure] > 0


async def test_idle_tunnels_are_held_until_they_were_looked_at(program: Path, uds: Path) -> None:
    looks = []
    async with grpc_server(uds, grpc_tunnel):
        report = await asyncio.to_thread(
            generator.run,
            program,
            ["--mode=grpc", f"--uds={uds}", "--idles=50"],
            while_idle=lambda: looks.append(1),
        )
    assert (report["first_error"], report["opened"], looks) == ("", 50, [1])


async def test_a_changed_byte_is_an_error(program: Path, uds: Path) -> None:
    def spoil(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1])

    async with connect_server(uds, relay_through(spoil)):
        report = await load(program, "--mode=http-connect", f"--uds={uds}", "--echoes=1")
    assert report["first_error"] == "wrong bytes after 0 good ones"


async def test_a_lost_piece_is_an_error(program: Path, uds: Path) -> None:
    pieces = iter(range(1_000_000))

    def lose(data: bytes) -> bytes:
        return b"" if next(pieces) == 3 else data

    async with connect_server(uds, relay_through(lose)):
        report = await load(program, "--mode=http-connect", f"--uds={uds}", "--downloads=1")
    assert report["first_error"].startswith("wrong bytes after ")


async def test_a_refused_connect_is_an_error_with_its_status(program: Path, uds: Path) -> None:
    async with connect_server(uds, refuse):
        report = await load(program, "--mode=http-connect", f"--uds={uds}", "--echoes=1")
    assert report["first_error"] == "CONNECT answered: HTTP/1.1 502 Bad Gateway"


async def test_a_refused_grpc_dial_is_an_error_with_its_text(program: Path, uds: Path) -> None:
    async with grpc_server(uds, refusing_grpc_tunnel):
        report = await load(program, "--mode=grpc", f"--uds={uds}", "--echoes=1")
    assert report["first_error"] == "dial: No agent available"


async def test_a_missing_frontend_socket_is_an_error(program: Path, uds: Path) -> None:
    report = await load(program, "--mode=grpc", f"--uds={uds}", "--echoes=2")
    assert (report["errors"], report["first_error"]) == (2, "connect: No such file or directory")


def test_a_missing_compiler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(BenchError, match=r"no C compiler found .*no-such-compiler"):
        generator.find_compiler()


def taken(pair: str, number: int, errors: int = 0, **values: float) -> Taken:
    return Taken("grpc", "busy", pair, number, {"seconds": 2.0, **values}, errors, "")


def test_a_goal_depends_on_the_mode_and_on_whose_pair_it_is() -> None:
    figure = row.chosen("download-8")[0].figures[0]
    pairs = ("ours", "ours+ref", "ref", "relay")
    for mode, least in (("http-connect", 4), ("grpc", 3)):
        outcome = Outcome(mode, "download-8", figure, {})
        assert [outcome.goal(pair) for pair in pairs] == [least, 1.5, None, None]


def test_a_goal_is_met_by_the_ratio_that_it_names() -> None:
    rates = {"ours": 300.0, "ours+ref": 149.0, "ref": 100.0}
    samples = [
        Taken("grpc", "download-8", pair, 0, {"seconds": 1.0, "download_bytes": rate * 1e6}, 0, "")
        for pair, rate in rates.items()
    ]
    (outcome,) = outcomes(samples, "grpc", row.chosen("download-8"))
    assert (outcome.met("ours"), outcome.met("ours+ref"), outcome.met("ref")) == (True, False, None)


def figures_of(samples: list[Taken]) -> dict[str, Outcome]:
    return {one.figure.label: one for one in outcomes(samples, "grpc", row.chosen("busy"))}


def test_a_ratio_above_one_is_better_for_rates_and_for_latencies() -> None:
    ours = {"download_bytes": 4e6, "echo_p50_us": 50.0, "echo_p99_us": 400.0}
    theirs = {"download_bytes": 2e6, "echo_p50_us": 100.0, "echo_p99_us": 200.0}
    figures = figures_of([taken("ours", 0, **ours), taken("ref", 0, **theirs)])
    assert figures["those 8 downloads"].ratio("ours") == 2.0
    assert figures["echo under 8 downloads, p50"].ratio("ours") == 2.0
    assert figures["echo under 8 downloads, p99"].ratio("ours") == 0.5


def test_the_ratio_is_the_median_of_the_rounds_and_not_of_the_machine() -> None:
    samples = [
        taken(pair, number, download_bytes=speed * pace, echo_p50_us=1, echo_p99_us=1)
        for number, pace in enumerate((1e6, 8e6, 4e6))
        for pair, speed in (("ours", 3), ("ref", 2))
    ]
    assert figures_of(samples)["those 8 downloads"].ratio("ours") == 1.5


def test_a_row_with_errors_has_no_figures() -> None:
    samples = [taken("ours", 0, errors=1, download_bytes=1e6), taken("ref", 0, download_bytes=1e6)]
    outcome = figures_of(samples)["those 8 downloads"]
    assert outcome.median("ours") is None
    assert outcome.ratio("ours") is None
    assert outcome.median("ref") == 0.5


def test_the_command_writes_its_figures_as_json(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "--modes=direct", "--rounds=1", "--rows=echo-1"]
    done = subprocess.run(
        [*command, *QUICK, f"--json={target}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(target.read_text())["figures"]
    assert [one["figure"] for one in figures] == [
        "echo 64 B, 1 tunnel, p50",
        "echo 64 B, 1 tunnel, p99",
    ]
    assert all(one["median"]["direct"] > 0 for one in figures)
