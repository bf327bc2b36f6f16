"""The program with many clusters: its flags, its pages, its lease."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.lifecycle.objects import ACCOUNT, PATHS, WORKLOAD
from tests.lifecycle.test_fleet import SECRETS, image_of, register, until
from tests.net.authority import Authority
from tests.peers.kube_api import KubeApi
from tests.peers.kube_http2 import Http2KubeApi
from tests.peers.ports import free_port
from tests.peers.program import Program, running

from konnectivity.lifecycle.reconciling.plan import KEPT_BY

SPEC = """\
server = "konnectivity.example.com:8091"
image = "registry.example.com/k:1"
heartbeats = false
"""
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/konnectivity-manager"


async def fetch(port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


async def start(exits: AsyncExitStack, folder: Path, *flags: str) -> tuple[Program, int]:
    """A manager that listens, and its port."""
    port = free_port()
    spec = folder / "agents.spec"
    spec.write_text(SPEC)
    program = await exits.enter_async_context(
        running(
            *("manager", f"--spec={spec}", "--health-server-host=127.0.0.1"),
            *(f"--health-server-port={port}", "--probe-interval=0s", *flags),
        )
    )
    await program.line("Manager is up")
    return program, port


async def test_a_folder_of_clusters_on_one_connection_each(
    authority: Authority, exits: AsyncExitStack, folder: Path
) -> None:
    identity = authority.issue("127.0.0.1")
    apis = [await exits.enter_async_context(Http2KubeApi(identity, authority)) for _ in range(2)]
    clusters = folder / "clusters"
    clusters.mkdir()
    for name, api in zip("ab", apis, strict=True):
        _inline(register(clusters, name, api), authority)
    (clusters / "b.toml").write_text('image = "own:1"\n')
    (clusters / "c.kubeconfig").write_text("[]")
    program, port = await start(exits, folder, f"--clusters={clusters}")
    await program.line("No election")
    await until(lambda: all(api.get(path) for path in PATHS for api in apis))
    assert [image_of(api) for api in apis] == ["registry.example.com/k:1", "own:1"]
    marks = [(api.get(WORKLOAD) or {})["metadata"]["annotations"][KEPT_BY] for api in apis]
    assert marks == ["a manager of many clusters, as a", "a manager of many clusters, as b"]
    await program.line('"The registration of a cluster cannot be used" cluster="c"')
    assert await fetch(port, "/readyz") == (200, b"ok")
    page = json.loads((await fetch(port, "/conditions"))[1])
    assert page["clusters"]["a"]["Installed"] == "True"
    assert page["clusters"]["c"] == {"Registered": "False"}
    whole = json.loads((await fetch(port, "/conditions?cluster=a"))[1])
    assert {each["type"] for each in whole["conditions"]} >= {"Registered", "ApiReachable"}
    assert (await fetch(port, "/conditions?cluster=z"))[0] == 404
    assert b'condition{cluster="c",type="Registered"} 0' in (await fetch(port, "/metrics"))[1]
    line = await program.line('"Created"')
    assert 'cluster="' in line
    for api in apis:
        api.remove(ACCOUNT)
        await until(lambda api=api: api.get(ACCOUNT))
        assert api.accepted == 1
    (folder / "agents.spec").write_text(SPEC.replace("k:1", "k:2"))
    await until(lambda: image_of(apis[0]) == "registry.example.com/k:2")
    assert image_of(apis[1]) == "own:1"
    program.signal(signal.SIGTERM)
    assert await program.status() == 0


async def test_of_two_managers_of_secrets_one_writes(
    api: KubeApi, exits: AsyncExitStack, folder: Path
) -> None:
    tenant = await exits.enter_async_context(KubeApi())
    value = base64.b64encode(register(folder, "x", tenant).read_bytes()).decode()
    secret: dict[str, Any] = {"metadata": {"labels": {"k": "v"}}, "data": {"value": value}}
    api.put(f"{SECRETS}/tenant", secret)
    config = api.kubeconfig(folder)
    flags = (f"--kubeconfig={config}", "--clusters-selector=k=v")
    first, _ = await start(exits, folder, *flags)
    await until(lambda: tenant.get(WORKLOAD) and (api.get(LEASE) or {}).get("spec"))
    leader = api.get(LEASE)["spec"]["holderIdentity"]  # type: ignore[index]
    second, port = await start(exits, folder, *flags)
    await until(lambda: tenant.watches == 2 * len(PATHS))
    page = json.loads((await fetch(port, "/conditions"))[1])
    assert (page["leading"], page["leader"]) == (False, leader)
    first.signal(signal.SIGTERM)
    await second.line("Leading")
    tenant.remove(ACCOUNT)
    await until(lambda: tenant.get(ACCOUNT))


async def test_flags_that_do_not_go_together_are_refused(folder: Path) -> None:
    spec = folder / "agents.spec"
    spec.write_text(SPEC)
    for flags, says in (
        (["--clusters=/x", "--clusters-selector=a=b"], "two sources of clusters"),
        (["--clusters=/x", "--once"], "--dry-run and --once are for one cluster"),
        (["--clusters-selector=a=b,"], "--clusters-selector is no label selector"),
        ([f"--clusters={folder}/none"], "No such file or directory"),
    ):
        async with running("manager", f"--spec={spec}", *flags) as program:
            assert says in await program.line("Error: ")
            assert await program.status() == 2


def _inline(path: Path, authority: Authority) -> None:
    """The CA in the kubeconfig itself: files outside of it are not read."""
    content = json.loads(path.read_text())
    cluster = content["clusters"][0]["cluster"]
    bundle = Path(cluster.pop("certificate-authority")).read_bytes()
    cluster["certificate-authority-data"] = base64.b64encode(bundle).decode()
    path.write_text(json.dumps(content))
