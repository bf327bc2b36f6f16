"""Many clusters: they come, change and go, and one that is broken costs the others nothing."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.lifecycle.conftest import Connect
from tests.lifecycle.objects import ACCOUNT, PATHS, WORKLOAD, container_of
from tests.lifecycle.specs import PLAIN
from tests.peers.kube_api import Fault, KubeApi

from konnectivity.lifecycle.managing import fleet_report
from konnectivity.lifecycle.managing.cluster import Cluster
from konnectivity.lifecycle.managing.cluster_directory import ClusterDirectory
from konnectivity.lifecycle.managing.cluster_secrets import ClusterSecrets
from konnectivity.lifecycle.managing.fleet import Fleet
from konnectivity.lifecycle.managing.metrics import ManagerCounters, families
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions
from konnectivity.observe.exposition import render
from konnectivity.observe.route import Request

SECRETS = "/api/v1/namespaces/default/secrets"


def new_fleet(*, most: int = 100) -> Fleet:
    counters = ManagerCounters()

    def make(name: str, client: Any, spec: Any) -> Cluster:
        options = ReconcileOptions(resync=0, probe=0)
        return Cluster(
            name, client, spec, options=options, may_write=lambda: True, counters=counters
        )

    return Fleet(
        PLAIN,
        connect=lambda each: each.connect(qps=500, burst=500, timeout=1.0),
        make=make,
        most=most,
        grace=0.4,
    )


@asynccontextmanager
async def following(folder: Path, **options: Any) -> AsyncIterator[Fleet]:
    """A fleet of the clusters in `folder`."""
    async with new_fleet(**options) as fleet:
        task = asyncio.create_task(ClusterDirectory(str(folder), fleet, interval=0.05).run())
        try:
            yield fleet
        finally:
            task.cancel()
            await asyncio.wait({task})


async def until(reached: Callable[[], Any], *, within: float = 8.0) -> None:
    async with asyncio.timeout(within):
        while not reached():  # noqa: ASYNC110 - what is waited for is elsewhere
            await asyncio.sleep(0.005)


def register(folder: Path, name: str, api: KubeApi, **options: Any) -> Path:
    path = folder / f"{name}.kubeconfig"
    content = api.kubeconfig(folder, **options).read_bytes()
    (folder / "kubeconfig").unlink()
    path.write_bytes(content)
    return path


def image_of(api: KubeApi) -> str:
    return str(container_of(api.get(WORKLOAD) or {})["image"])


async def conditions(fleet: Fleet, query: str = "") -> str:
    request = Request("GET", "/conditions", query, {})
    answer = await fleet_report.conditions(fleet, request, single=False, head={})
    return answer.body.decode()


async def told(fleet: Fleet, text: str, query: str = "") -> None:
    """Wait until the page has `text`."""
    async with asyncio.timeout(8):
        while text not in await conditions(fleet, query):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


@pytest.fixture
async def others(exits: AsyncExitStack) -> list[KubeApi]:
    """Two more API servers."""
    return [await exits.enter_async_context(KubeApi()) for _ in range(2)]


async def test_clusters_come_and_go_with_their_files(
    api: KubeApi, others: list[KubeApi], folder: Path
) -> None:
    register(folder, "a", api)
    async with following(folder) as fleet:
        await until(lambda: api.get(WORKLOAD))
        path = register(folder, "b", others[0])
        await until(lambda: others[0].get(WORKLOAD))
        assert sorted(fleet.keepers) == ["a", "b"]
        path.unlink()
        await until(lambda: others[0].watches == 0)
        assert sorted(fleet.keepers) == ["a"]
        assert others[0].get(WORKLOAD)
        assert not others[0].asked("DELETE")
        api.remove(ACCOUNT)
        await until(lambda: api.get(ACCOUNT))


async def test_each_may_want_something_of_its_own_and_change_its_mind(
    api: KubeApi, others: list[KubeApi], folder: Path
) -> None:
    register(folder, "a", api)
    register(folder, "b", others[0])
    own = folder / "b.toml"
    own.write_text('image = "registry.example.com/k:b"\n')
    async with following(folder) as fleet:
        await until(lambda: api.get(WORKLOAD) and others[0].get(WORKLOAD))
        assert image_of(api) == PLAIN.image
        assert image_of(others[0]) == "registry.example.com/k:b"
        before = fleet.keepers["b"].cluster
        own.write_text('image = "registry.example.com/k:b2"\n')
        await until(lambda: image_of(others[0]) == "registry.example.com/k:b2")
        assert fleet.keepers["b"].cluster is before
        own.unlink()
        await until(lambda: image_of(others[0]) == PLAIN.image)


async def test_another_kubeconfig_is_another_way_to_the_cluster(
    api: KubeApi, others: list[KubeApi], folder: Path
) -> None:
    api.tokens = {"first"}
    register(folder, "a", api, token="first")  # noqa: S106
    async with following(folder):
        await until(lambda: all(api.get(path) for path in PATHS))
        api.tokens = {"second"}
        api.end_watches()
        register(folder, "a", api, token="second")  # noqa: S106
        await until(lambda: api.bearers[-1] == "second" and api.watches)
        api.remove(ACCOUNT)
        await until(lambda: api.get(ACCOUNT))
        register(folder, "a", others[0])
        await until(lambda: others[0].get(WORKLOAD) and not api.watches)


async def test_a_cluster_that_never_answers_does_not_delay_the_restore_in_another(
    api: KubeApi, others: list[KubeApi], folder: Path
) -> None:
    others[0].faults.append(Fault(hang=True))
    others[1].faults.append(Fault(status=500))
    register(folder, "a", others[0])
    register(folder, "b", others[1])
    register(folder, "c", api)
    async with following(folder) as fleet:
        await until(lambda: api.get(WORKLOAD) and api.watches >= 3)
        await told(fleet, "NoAnswer", "cluster=a")
        await told(fleet, "Refused", "cluster=b")
        took = []
        for _ in range(5):
            started = time.monotonic()
            api.remove(ACCOUNT)
            await until(lambda: api.get(ACCOUNT))
            took.append(time.monotonic() - started)
        assert min(took) < 0.3


async def test_what_is_malformed_is_said_and_the_others_go_on(
    api: KubeApi, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(folder, "good", api)
    program = '{"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "touch"}'
    bad = {
        "yaml": ("{", "is not YAML"),
        "list": ("[]", "is not a kubeconfig"),
        "exec": (
            _edited(folder, 'token": "kube-api-token"', f'exec": {program}'),
            "field exec names what is outside of it",
        ),
        "files": (
            _edited(folder, '"server"', '"certificate-authority": "/etc/passwd", "server"'),
            "field certificate-authority names what is outside of it",
        ),
    }
    for name, (content, _) in bad.items():
        (folder / f"{name}.kubeconfig").write_text(content)
    async with following(folder) as fleet:
        await until(lambda: api.get(WORKLOAD))
        await until(lambda: all(fleet.keepers[name].trouble for name in bad))
        for name, (_, says) in bad.items():
            assert says in fleet.keepers[name].trouble
        assert len([each for each in caplog.messages if "cannot be used" in each]) == len(bad)
        assert '"Registered": "False"' in await conditions(fleet)
        page = render(families(ManagerCounters(), await fleet_report.figures(fleet), leading=True))
        assert b'condition{cluster="yaml",type="Registered"} 0' in page
        assert b'clusters{type="Registered",status="True"} 1' in page
        (folder / "yaml.kubeconfig").write_bytes((folder / "good.kubeconfig").read_bytes())
        await until(lambda: fleet.keepers["yaml"].cluster and not fleet.keepers["yaml"].trouble)


def _edited(folder: Path, text: str, instead: str) -> str:
    content = (folder / "good.kubeconfig").read_text()
    assert text in content
    return content.replace(text, instead)


async def test_a_file_that_is_being_written_is_no_fault_and_a_bad_one_changes_nothing(
    api: KubeApi, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = register(folder, "a", api)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    async with following(folder) as fleet:
        await until(lambda: "a" in fleet.keepers)
        await asyncio.sleep(0.2)
        path.write_bytes(whole)
        await until(lambda: api.get(WORKLOAD))
        assert not fleet.keepers["a"].trouble
        (folder / "a.toml").write_text('imagge = "x"\nca-bundle = "@/etc/passwd"\n')
        await until(lambda: fleet.keepers["a"].trouble)
        trouble = fleet.keepers["a"].trouble
        assert 'unknown key "imagge" (did you mean image?)' in trouble
        assert "must be PEM text here, not the path of a file" in trouble
        api.remove(ACCOUNT)
        await until(lambda: api.get(ACCOUNT))
    assert len([each for each in caplog.messages if "cannot be used" in each]) == 1


async def test_more_clusters_than_the_bound_are_refused(
    api: KubeApi, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        register(folder, name, api)
    async with following(folder, most=2) as fleet:
        await until(lambda: len(fleet.keepers) == 2)
        await until(lambda: [each for each in caplog.messages if "too many clusters" in each])
        dropped = next(iter(fleet.keepers))
        (folder / f"{dropped}.kubeconfig").unlink()
        await until(lambda: len(fleet.keepers) == 2 and dropped not in fleet.keepers)


async def test_a_folder_that_cannot_be_read_lets_no_cluster_go(api: KubeApi, folder: Path) -> None:
    clusters = folder / "clusters"
    clusters.mkdir()
    register(clusters, "a", api)
    async with new_fleet() as fleet:
        source = ClusterDirectory(str(clusters), fleet)
        await source.look()
        assert source.synced
        await until(lambda: api.get(WORKLOAD))
        clusters.rename(folder / "elsewhere")
        await source.look()
        assert "No such file or directory" in source.trouble
        assert list(fleet.keepers) == ["a"]
        (folder / "elsewhere").rename(clusters)
        await source.look()
        assert (source.trouble, list(fleet.keepers)) == ("", ["a"])


async def test_all_change_with_the_specification_of_all(
    api: KubeApi, others: list[KubeApi], folder: Path
) -> None:
    register(folder, "a", api)
    register(folder, "b", others[0])
    (folder / "b.toml").write_text('image = "own:1"\n')
    async with following(folder) as fleet:
        await until(lambda: api.get(WORKLOAD) and others[0].get(WORKLOAD))
        changed = PLAIN.__class__(**{**PLAIN.__dict__, "image": "new:1", "labels": ("team=x",)})
        fleet.specify(changed)
        await until(lambda: image_of(api) == "new:1")
        await until(lambda: (others[0].get(WORKLOAD) or {})["metadata"]["labels"].get("team"))
        assert image_of(others[0]) == "own:1"


async def test_the_page_of_a_fleet_is_short_and_has_one_cluster_whole(
    api: KubeApi, folder: Path
) -> None:
    register(folder, "a", api)
    async with following(folder) as fleet:
        await told(fleet, '"Installed": "True"')
        assert '"lastTransitionTime"' not in await conditions(fleet)
        assert '"lastTransitionTime"' in await conditions(fleet, "cluster=a")
        assert await conditions(fleet, "cluster=b") == "no such cluster\n"
        assert fleet_report.unready(fleet, single=False) == ""


def _secret(kubeconfig: bytes, *, key: str = "value", own: str = "") -> dict[str, Any]:
    values = {key: kubeconfig, **({"agents.toml": own.encode()} if own else {})}
    return {
        "metadata": {"labels": {"team": "net"}},
        "data": {name: base64.b64encode(value).decode() for name, value in values.items()},
    }


async def test_secrets_are_clusters_that_come_change_and_go_by_a_watch(
    api: KubeApi, others: list[KubeApi], folder: Path, client_of: Connect
) -> None:
    first, second = (register(folder, "x", each).read_bytes() for each in others)
    api.put(f"{SECRETS}/a-kubeconfig", _secret(first))
    api.put(f"{SECRETS}/other", {"metadata": {}, "data": {}})
    async with new_fleet() as fleet:
        client = client_of()
        source = ClusterSecrets(client, fleet, namespace="default", selector="team=net")
        task = asyncio.create_task(source.run())
        await until(lambda: others[0].get(WORKLOAD))
        assert list(fleet.keepers) == ["a-kubeconfig"]
        await until(lambda: api.watches)
        api.put(f"{SECRETS}/b", _secret(second, key="kubeconfig", own='image = "own:1"'))
        await until(lambda: others[1].get(WORKLOAD))
        assert image_of(others[1]) == "own:1"
        api.put(f"{SECRETS}/c", {"metadata": {"labels": {"team": "net"}}, "data": {"x": "eA=="}})
        await until(lambda: "c" in fleet.keepers and fleet.keepers["c"].trouble)
        assert "it has no key kubeconfig or value" in fleet.keepers["c"].trouble
        api.remove(f"{SECRETS}/a-kubeconfig")
        await until(lambda: not others[0].watches)
        assert sorted(fleet.keepers) == ["b", "c"]
        task.cancel()
        await asyncio.wait({task})
