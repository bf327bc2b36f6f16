"""The command `konnectivity manager`, and kubectl as the user who gets in its way."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.peers import tool
from tests.peers.kube_api import Fault, KubeApi
from tests.peers.ports import free_port
from tests.peers.program import Program, running

ACCOUNT = "/api/v1/namespaces/kube-system/serviceaccounts/konnectivity-agent"
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:konnectivity-server"
WORKLOAD = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/konnectivity-manager"
SPEC = """
server = "konnectivity.example.com:8091"
image = "registry.example.com/konnectivity:1.0"
heartbeats = false
"""


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with KubeApi() as server:
        yield server


@pytest.fixture
def argv(api: KubeApi, folder: Path) -> list[str]:
    """The command line of a manager of that cluster."""
    spec = folder / "agents.toml"
    spec.write_text(SPEC)
    config = api.kubeconfig(folder)
    return ["manager", f"--spec={spec}", f"--kubeconfig={config}", "--health-server-host=127.0.0.1"]


async def until(reached: Callable[[], Any], *, within: float = 10.0) -> float:
    started = time.monotonic()
    async with asyncio.timeout(within):
        while not reached():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.005)
    return time.monotonic() - started


async def run(*arguments: str) -> tuple[int, str, str]:
    """`konnectivity <arguments>` to its end: status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "konnectivity", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    process._transport.close()  # type: ignore[attr-defined]
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def image(api: KubeApi) -> str:
    item = api.get(WORKLOAD) or {}
    return str(item["spec"]["template"]["spec"]["containers"][0]["image"])


async def fetch(port: int, path: str) -> str:
    return await tool.run("curl", "-s", f"http://127.0.0.1:{port}{path}")


async def test_once_installs_and_ends_and_a_second_time_writes_nothing(
    api: KubeApi, argv: list[str]
) -> None:
    assert (await run(*argv, "--once"))[0] == 0
    assert all(api.get(path) for path in (ACCOUNT, BINDING, WORKLOAD))
    before = len(api.requests)
    assert (await run(*argv, "--once"))[0] == 0
    assert not [each for each in api.requests[before:] if each.writes]


async def test_once_says_what_is_refused(api: KubeApi, argv: list[str]) -> None:
    api.faults.append(Fault("PATCH", "/daemonsets/", status=403, message="exceeded quota: few"))
    status, _, err = await run(*argv, "--once", "--timeout=2s")
    assert status == 1
    assert "Error: DaemonSet kube-system/konnectivity-agent: exceeded quota: few" in err
    assert api.get(ACCOUNT)


async def test_a_dry_run_shows_what_would_be_done_and_does_nothing(
    api: KubeApi, argv: list[str]
) -> None:
    status, out, _ = await run(*argv, "--dry-run")
    assert (status, out.splitlines()) == (
        0,
        [
            "+ ServiceAccount kube-system/konnectivity-agent",
            "+ ClusterRoleBinding system:konnectivity-server",
            "+ DaemonSet kube-system/konnectivity-agent",
            "3 to create, 0 to change, 0 as specified",
        ],
    )
    assert not [each for each in api.requests if each.writes]


async def test_an_api_that_is_away_is_said_and_not_waited_for_too_long(
    api: KubeApi, argv: list[str]
) -> None:
    await api.stop()
    status, out, _ = await run(*argv, "--dry-run", "--timeout=5s")
    assert status == 1
    assert "! DaemonSet kube-system/konnectivity-agent: cannot be read: http://127.0.0.1:" in out


async def test_a_bad_specification_is_all_said_at_once(argv: list[str], folder: Path) -> None:
    (folder / "agents.toml").write_text('serve = "x"\nmode = "pods"\n')
    status, _, err = await run(*argv)
    assert status == 2
    assert 'unknown key "serve" (did you mean server?)' in err
    assert "mode" in err
    assert (await run("manager"))[2].startswith("Error: failed to validate manager options with")


async def test_health_conditions_and_metrics_are_served(api: KubeApi, argv: list[str]) -> None:
    port = free_port()
    async with running(*argv, f"--health-server-port={port}") as program:
        await program.line("Manager is up")
        await until(lambda: api.get(WORKLOAD))
        assert await fetch(port, "/livez") == "ok"
        assert await fetch(port, "/readyz") == "ok"
        page = json.loads(await fetch(port, "/conditions"))
        found = {each["type"]: each["status"] for each in page["conditions"]}
        assert (found["Installed"], found["ApiReachable"]) == ("True", "True")
        assert page["leading"]
        metrics = await fetch(port, "/metrics")
        assert 'konnectivity_manager_heals_total{kind="DaemonSet",reason="install"} 1' in metrics
        assert "konnectivity_manager_condition" in metrics
        await stopped(program)


async def stopped(program: Program) -> None:
    program.signal(signal.SIGTERM)
    assert await program.status() == 0


async def test_when_the_leader_leaves_the_other_heals_within_seconds(
    api: KubeApi, argv: list[str]
) -> None:
    async with running(*argv, f"--health-server-port={free_port()}") as first:
        await first.line('"Leading"')
        async with running(*argv, f"--health-server-port={free_port()}") as second:
            await second.line("Manager is up")
            await stopped(first)
            api.remove(WORKLOAD)
            assert await until(lambda: api.get(WORKLOAD)) < 5.0
            await stopped(second)
    assert (api.get(LEASE) or {})["spec"]["holderIdentity"] == ""


async def test_what_kubectl_deletes_edits_and_strips_comes_back(
    api: KubeApi, argv: list[str], folder: Path
) -> None:
    config = f"--kubeconfig={folder}/kubeconfig"

    async def kubectl(*arguments: str) -> str:
        cache = f"--cache-dir={folder}/cache"
        return await tool.run("kubectl", config, cache, "-n=kube-system", *arguments)

    await kubectl("version")
    async with running(*argv, f"--health-server-port={free_port()}") as program:
        await until(lambda: api.get(WORKLOAD))
        assert "konnectivity-agent" in await kubectl("get", "daemonsets")
        uid = (api.get(WORKLOAD) or {})["metadata"]["uid"]
        await kubectl("delete", "ds", "konnectivity-agent", "--wait=false")
        await until(lambda: api.get(WORKLOAD))
        assert (api.get(WORKLOAD) or {})["metadata"]["uid"] != uid
        await kubectl("set", "image", "ds/konnectivity-agent", "*=evil:1")
        await program.line("evil:1")
        await until(lambda: image(api) == "registry.example.com/konnectivity:1.0")
        await kubectl("label", "sa", "konnectivity-agent", "app-", "k8s-app-")
        await program.line("metadata.labels.app")
        await until(lambda: "app" in (api.get(ACCOUNT) or {})["metadata"]["labels"])
        await kubectl("delete", "clusterrolebinding", "system:konnectivity-server", "--wait=false")
        await until(lambda: api.get(BINDING))
        events = await kubectl("get", "events", "-o=jsonpath={.items[*].reason}")
        assert {"Installed", "Restored", "DriftReverted"} <= set(events.split())
        shown = json.loads(await kubectl("get", f"--raw={WORKLOAD}"))
        owners = {each["manager"] for each in shown["metadata"]["managedFields"]}
        assert "konnectivity-manager" in owners
        await stopped(program)


async def test_kubectl_meets_a_conflict_where_it_would_change_what_is_ours(
    api: KubeApi, argv: list[str], folder: Path
) -> None:
    await run(*argv, "--once")
    theirs = folder / "theirs.json"
    meta = {"name": "konnectivity-agent", "namespace": "kube-system", "labels": {"app": "other"}}
    theirs.write_text(json.dumps({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}))
    config, cache = f"--kubeconfig={folder}/kubeconfig", f"--cache-dir={folder}/cache"
    apply = ("apply", "--server-side", "--validate=false", f"--filename={theirs}")
    with pytest.raises(AssertionError, match='conflict with "konnectivity-manager"'):
        await tool.run("kubectl", config, cache, *apply)
    await tool.run("kubectl", config, cache, *apply, "--force-conflicts")
    _, out, _ = await run(*argv, "--dry-run")
    assert 'metadata.labels.app: "other" -> "konnectivity-agent"  # kubectl (Apply' in out
