"""`konnectivity manager --pki-directory` at work: rotations under load, full disks, no leaks."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.e2e.conftest import MODES, OpenTunnel, Pair, StartPair, unharmed, until
from tests.e2e.test_certs_rotation import more
from tests.e2e.test_rotation import INTERVAL, dialling, new_link
from tests.peers import tool
from tests.peers.endpoint import Endpoint
from tests.peers.frontend import ping
from tests.peers.kube_api import KubeApi
from tests.peers.ports import free_port
from tests.peers.program import Program, running
from tests.peers.volume import Volume

from konnectivity.cli import certs

SECRET = "/api/v1/namespaces/kube-system/secrets/konnectivity-agent"  # noqa: S105 - a path
BUNDLE = "/api/v1/namespaces/kube-system/configmaps/konnectivity-ca-bundle"
EVENTS = "/api/v1/namespaces/kube-system/events"
SPEC = """
server = "127.0.0.1:8091"
image = "registry.example.com/konnectivity:1.0"
authentication = "certificate"
"""


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as server:
        yield server


class Managed:
    """A manager that keeps `pki`, and all that it was ever seen to hold."""

    def __init__(self, program: Program, pki: Path, port: int, api: KubeApi) -> None:
        self.program = program
        self.pki = pki
        self.api = api
        self._port = port
        self._keys: set[str] = set()

    def data(self) -> bytes:
        """The certificate in the cluster."""
        return base64.b64decode(((self.api.get(SECRET) or {}).get("data") or {})["tls.crt"])

    def trusted(self) -> int:
        """How many CAs agents are to trust."""
        return str((self.api.get(BUNDLE) or {})["data"]["ca.crt"]).count("BEGIN")

    async def condition(self) -> dict[str, str]:
        page = json.loads(await self.fetch("/conditions"))
        found: dict[str, dict[str, str]] = {each["type"]: each for each in page["conditions"]}
        return found.get("CertificatesValid", {})

    async def judged(self, reason: str) -> dict[str, str]:
        """The condition, once it has this reason."""
        async with asyncio.timeout(20):
            while (found := await self.condition()).get("reason") != reason:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return found

    async def fetch(self, path: str) -> str:
        return await tool.run("curl", "-s", f"http://127.0.0.1:{self._port}{path}")

    async def rotate(self, *flags: str) -> int:
        """`konnectivity certs rotate`, from somebody else's shell; its exit status."""
        words = ["rotate", f"--directory={self.pki}", *flags]
        status = await asyncio.to_thread(certs.command, words)
        self.remember_keys()
        return status

    async def followed(self, *flags: str) -> None:
        """The same, once the cluster has followed the step before."""
        async with asyncio.timeout(20):
            while await self.rotate(*flags):  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.1)

    def annotate(self, value: str) -> None:
        item = self.api.get(SECRET) or {}
        item["metadata"].setdefault("annotations", {})["konnectivity/rotate"] = value
        self.api.put(SECRET, item, manager="kubectl-annotate")

    def remember_keys(self) -> None:
        """Note a line of each key, as it is in the file and as a Secret has it."""
        for each in self.pki.rglob("*.key"):
            content = each.read_bytes()
            self._keys |= {content.splitlines()[1].decode(), base64.b64encode(content).decode()}

    async def told_no_key(self) -> None:
        """Make sure that nothing shows a key: log, Events, conditions, metrics."""
        self.remember_keys()
        assert len(self._keys) > 4
        events = json.dumps(self.api.items(EVENTS))
        pages = [await self.fetch(path) for path in ("/conditions", "/metrics")]
        shown = "\n".join([*self.program.lines, events, *pages])
        assert "Rotated" in events
        assert not [key for key in self._keys if key in shown or key[40:80] in shown]


Argv = Callable[[Path, int], Sequence[str]]
Manage = Callable[[Path], AbstractAsyncContextManager[Managed]]


@pytest.fixture
def argv(api: KubeApi, folder: Path) -> Argv:
    """The command line of a manager that keeps a directory, with its health port."""

    def make(pki: Path, port: int) -> Sequence[str]:
        (folder / "agents.toml").write_text(SPEC)
        return (
            f"--spec={folder}/agents.toml",
            f"--kubeconfig={api.kubeconfig(folder)}",
            f"--pki-directory={pki}",
            "--certificate-reload-interval=100ms",
            "--health-server-host=127.0.0.1",
            f"--health-server-port={port}",
        )

    return make


@pytest.fixture
def manage(api: KubeApi, argv: Argv) -> Manage:
    @asynccontextmanager
    async def run(pki: Path) -> AsyncIterator[Managed]:
        port = free_port()
        async with running("manager", "-v=4", *argv(pki, port)) as program:
            await program.line("Manager is up")
            await until(lambda: api.get(SECRET) and api.get(BUNDLE))
            yield Managed(program, pki, port, api)
            program.signal(signal.SIGTERM)
            assert await program.status() == 0

    return run


@asynccontextmanager
async def pod(api: KubeApi, folder: Path) -> AsyncIterator[tuple[Volume, Volume]]:
    """The volumes of an agent's pod: certificate and CA bundle."""
    volumes = Volume(api, SECRET, folder / "certificate"), Volume(api, BUNDLE, folder / "ca")
    for each in volumes:
        each.sync()
    async with asyncio.TaskGroup() as tasks:
        syncing = [tasks.create_task(each.run()) for each in volumes]
        yield volumes
        for each in syncing:
            each.cancel()


async def uses_all(pair: Pair, managed: Managed) -> None:
    """Wait until server and agent use what the directory and the cluster hold."""

    def in_use() -> bool:
        facts = [each for one in (pair.server, pair.agent) for each in one.certificates]
        return all(each.on_disk == each.in_use and not each.error for each in facts)

    await until(lambda: managed.data() == (managed.pki / "agent" / "tls.crt").read_bytes())
    await asyncio.sleep(4 * INTERVAL["certificate_reload_interval"])
    await until(in_use)


async def test_leaves_and_ca_rotate_in_a_cluster_under_load_and_no_tunnel_notices(
    api: KubeApi,
    manage: Manage,
    start_pair: StartPair,
    folder: Path,
    open_tunnel: OpenTunnel,
    echoing: Endpoint,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On first need a CA is made; then all is rotated on demand, and the CA replaced."""
    async with manage(folder / "pki") as managed, pod(api, folder) as (certificate, ca):
        pki = managed.pki
        server = {
            "cluster_cert": str(pki / "server" / "tls.crt"),
            "cluster_key": str(pki / "server" / "tls.key"),
            "cluster_ca_cert": str(pki / "server" / "ca.crt"),
            "agent_certificate_identities": ("O=konnectivity:agent",),
        }
        agent = {
            "agent_cert": certificate.file("tls.crt"),
            "agent_key": certificate.file("tls.key"),
            "ca_cert": ca.file("ca.crt"),
        }
        pair = await start_pair(server=INTERVAL | server, agent=INTERVAL | agent)
        await until(lambda: pair.agent.connections.links)
        links = list(pair.agent.connections.links)
        async with AsyncExitStack() as load:
            dials = []
            for mode in MODES:
                await load.enter_async_context(unharmed(await open_tunnel(mode, echoing.address)))
                made = dialling(open_tunnel, mode, echoing.address)
                dials.append(await load.enter_async_context(made))

            async def settled() -> None:
                await uses_all(pair, managed)
                await until(more(dials))

            before = managed.data()
            managed.annotate("now")
            await until(lambda: managed.data() != before)
            await settled()
            assert await managed.rotate("--all") == 0
            await settled()
            # The manager sleeps: the rotation must see that the cluster does not follow.
            managed.program.signal(signal.SIGSTOP)
            assert await managed.rotate("--ca", "--after=0s") == 0
            assert await managed.rotate("--ca", "--after=0s") == 1
            assert "the cluster does not have the bundle of CAs yet" in capsys.readouterr().err
            managed.program.signal(signal.SIGCONT)
            await until(lambda: managed.trusted() == 2)
            await settled()
            for step in ("reissue", "drop-old"):
                await managed.followed("--ca", "--after=0s")
                assert f"phase {step} is complete" in capsys.readouterr().out
                await settled()
            await until(lambda: managed.trusted() == 1)
            await settled()
            assert pair.agent.connections.links == links
        counters = pair.server.exchange.counters
        assert counters.dial_failures == {}
        assert set(counters.tunnels_ended) == {"frontend_close"}
        await new_link(pair)
        await ping(await open_tunnel("grpc", echoing.address))
        assert (await managed.judged("Valid"))["status"] == "True"
        await managed.told_no_key()


Full = Callable[[int], None]


@pytest.fixture(params=["limit", "tmpfs"])
def disk(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Path, Full, Full]]:
    """A folder, what makes its disk full for a process, and what makes room again."""
    place = folder / "disk"
    place.mkdir()
    if request.param == "limit":
        infinity = resource.RLIM_INFINITY

        def limit(pid: int, most: int) -> None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, infinity))

        yield place, lambda pid: limit(pid, 0), lambda pid: limit(pid, infinity)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root only")

    def fill(_: int) -> None:
        with (place / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 1024):
                    pass
            except OSError:
                return

    yield place, fill, lambda _: (place / "ballast").unlink()
    subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_is_said_and_leaves_the_old_files_whole(
    manage: Manage, disk: tuple[Path, Full, Full]
) -> None:
    place, fill, make_room = disk
    pki = place / "pki"
    async with manage(pki) as managed:
        await managed.judged("Valid")
        # The directory is written to once more, when the cluster is seen to have all.
        await until((pki / "cluster.json").exists)
        before, certificate = contents(pki), managed.data()
        fill(managed.program.pid)
        managed.annotate("on a full disk")
        found = await managed.judged("DirectoryFailed")
        assert found["status"] == "False"
        assert found["message"].startswith(f"cannot write {pki}/")
        assert contents(pki) == before
        assert managed.data() == certificate
        await until(lambda: "CertificatesFailed" in json.dumps(managed.api.items(EVENTS)))
        make_room(managed.program.pid)
        await until(lambda: managed.data() != certificate)
        await managed.judged("Valid")
        await managed.told_no_key()


def contents(path: Path) -> dict[str, bytes]:
    """All files by name."""
    return {str(each): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()}


async def test_a_directory_that_cannot_be_made_is_said_and_tried_again(
    api: KubeApi, argv: Argv, folder: Path
) -> None:
    """Nothing is installed meanwhile: agents without a certificate would be of no use."""
    obstacle = folder / "file"
    obstacle.write_text("")
    async with running("manager", *argv(obstacle / "pki", free_port())) as program:
        line = await program.line("Cannot keep the certificates")
        assert f"{obstacle}/pki: not a directory" in line
        writes = [each for each in api.requests if each.writes]
        told = ("/leases", "/events")  # the Event that says so may be there already
        assert not [each for each in writes if not any(part in each.path for part in told)]
        obstacle.unlink()
        await until(lambda: api.get(SECRET))
        await program.line("Keeping the certificates again")


async def test_each_cluster_of_many_has_a_ca_of_its_own(
    api: KubeApi, argv: Argv, folder: Path
) -> None:
    """Servers tell clusters apart by the CA of their agents."""
    names = ("one", "two")
    clusters = folder / "clusters"
    clusters.mkdir()
    async with KubeApi() as other:
        for name, each in zip(names, (api, other), strict=True):
            each.kubeconfig(folder).rename(clusters / f"{name}.kubeconfig")
        fleet = [each for each in argv(folder / "pki", free_port()) if "--kubeconfig" not in each]
        async with running("manager", *fleet, f"--clusters={clusters}") as program:
            await until(lambda: api.get(SECRET) and other.get(SECRET))
            await until(lambda: api.get(BUNDLE) and other.get(BUNDLE))
            program.signal(signal.SIGTERM)
            assert await program.status() == 0
        trusted = [(each.get(BUNDLE) or {})["data"]["ca.crt"] for each in (api, other)]
    assert trusted == [(folder / "pki" / name / "ca.crt").read_text() for name in names]
    assert trusted[0] != trusted[1]
