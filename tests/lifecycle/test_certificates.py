"""The agents' certificate in a cluster: made, renewed, rotated, and put back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.lifecycle.conftest import Connect
from tests.lifecycle.test_manager import QUICK, told, until
from tests.peers import tool
from tests.peers.kube_api import Fault, KubeApi

from konnectivity.errors import CertificateError
from konnectivity.lifecycle.credentials.certificate_objects import (
    ROTATE,
    Material,
    render_with,
    united,
)
from konnectivity.lifecycle.credentials.certificates import REST
from konnectivity.lifecycle.managing.cluster import Cluster
from konnectivity.lifecycle.managing.metrics import ManagerCounters, families
from konnectivity.lifecycle.managing.options import ManagerOptions, validate
from konnectivity.lifecycle.reconciling.conditions import Condition
from konnectivity.lifecycle.reconciling.plan import key_of
from konnectivity.lifecycle.reconciling.reconcile import ReconcileOptions
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.observe.exposition import render as render_metrics
from konnectivity.pki import files
from konnectivity.pki.authority import Authority
from konnectivity.pki.directory import Directory
from konnectivity.pki.issuing import initialise, new_authority
from konnectivity.pki.renewal import renew_at
from konnectivity.pki.role import Leaf, Role
from konnectivity.pki.rotation import advance
from konnectivity.pki.state import State
from konnectivity.pki.upkeep import read

SECRET = "/api/v1/namespaces/kube-system/secrets/konnectivity-agent"  # noqa: S105 - a path
BUNDLE = "/api/v1/namespaces/kube-system/configmaps/konnectivity-ca-bundle"
ACCOUNT = "/api/v1/namespaces/kube-system/serviceaccounts/konnectivity-agent"
WORKLOAD = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent"
SPEC = AgentSpec(server="127.0.0.1:8091", image="agent:1", authentication="certificate")
LEAVES = (Leaf("server", Role.SERVER, ("127.0.0.1",)), Leaf("agent", Role.AGENT))


@asynccontextmanager
async def keeping(
    client_of: Connect,
    pki: Path,
    spec: AgentSpec = SPEC,
    *,
    may_write: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Cluster]:
    cluster = Cluster(
        "",
        client_of(),
        spec,
        options=ReconcileOptions(resync=0, probe=0, watch=QUICK),
        may_write=may_write,
        counters=ManagerCounters(),
        pki=pki,
        pki_interval=0.1,
    )
    task = asyncio.create_task(cluster.run())
    try:
        yield cluster
    finally:
        if not task.done():
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


def made(path: Path, *, lifetime: float = 90 * 86400.0, now: float = 0.0) -> Directory:
    now = now or time.time()
    state = State(LEAVES, lifetime=lifetime)
    return initialise(path, state, authority=new_authority(now=now), now=now, tell=lambda _: None)


def soon_due(path: Path) -> bytes:
    """Give agents a certificate that is due in a few seconds, whatever the next one is.

    The moment is drawn from the certificate, so it is issued until it is a near one.
    """
    with Directory.changing(path) as directory:
        authority, now = directory.authority(1), time.time()
        while True:
            pair = authority.issue(LEAVES[1], now=now + 98.0, lifetime=6.0)
            directory.put_leaf(LEAVES[1], pair)
            if 0.5 < renew_at(read(path, now=now).certificate) - now < 2.0:
                return pair.certificate


def data(api: KubeApi, name: str = "tls.crt") -> bytes:
    return base64.b64decode(((api.get(SECRET) or {}).get("data") or {}).get(name, ""))


def condition(cluster: Cluster) -> Condition:
    return cluster.conditions.current["CertificatesValid"]


async def installed(api: KubeApi, cluster: Cluster) -> None:
    """Wait until all is there, and noted in the directory: a thread writes that."""
    assert cluster.certificates is not None
    note = cluster.certificates.path / "cluster.json"
    async with asyncio.timeout(10):
        await cluster.reconciler.until_settled()
        await until(lambda: api.get(SECRET) and api.get(WORKLOAD))
        await cluster.reconciler.until_settled()
        await until(note.exists)


async def events(api: KubeApi, cluster: Cluster, reason: str) -> list[str]:
    await cluster.reconciler.recorder.flush()
    return [text for each, text in told(api) if each == reason]


def annotate(api: KubeApi, path: str, value: str) -> None:
    item = api.get(path) or {}
    item["metadata"].setdefault("annotations", {})[ROTATE] = value
    api.put(path, item, manager="kubectl-annotate")


async def passes(seconds: float = 0.5) -> None:
    """Let several looks go by."""
    await asyncio.sleep(seconds)


async def test_on_first_need_a_directory_is_made_and_agents_get_a_certificate_of_its_ca(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    pki = folder / "fleet" / "one"
    async with keeping(client_of, pki) as cluster:
        await installed(api, cluster)
        secret, workload = api.get(SECRET) or {}, api.get(WORKLOAD) or {}
        assert secret["type"] == "kubernetes.io/tls"
        assert secret["metadata"]["labels"]["k8s-app"] == "konnectivity-agent"
        (folder / "leaf.crt").write_bytes(data(api))
        (folder / "ca.crt").write_text((api.get(BUNDLE) or {})["data"]["ca.crt"])
        purpose = ("-purpose", "sslclient", "-CAfile", str(folder / "ca.crt"))
        await tool.run("openssl", "verify", *purpose, str(folder / "leaf.crt"))
        assert data(api, "tls.key") == (pki / "agent" / "tls.key").read_bytes()
        keys = {each.stat().st_mode & 0o777 for each in pki.rglob("*.key")}
        assert keys == {0o600}
        assert condition(cluster).status
        assert condition(cluster).message.startswith("90 days left")
        mounts = workload["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        assert not [each for each in mounts if "subPath" in each]


async def test_a_secret_that_is_deleted_damaged_or_replaced_comes_back_at_once(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    stranger = Authority.create("somebody else", now=time.time()).issue(LEAVES[1], now=time.time())
    async with keeping(client_of, folder / "pki") as cluster:
        await installed(api, cluster)
        right = data(api)
        api.remove(SECRET)
        started = time.monotonic()
        await until(lambda: data(api) == right)
        assert time.monotonic() - started < 1.0
        for certificate, key in ((b"rubbish", None), (stranger.certificate, stranger.key)):
            item = copy.deepcopy(api.get(SECRET) or {})
            item["data"]["tls.crt"] = base64.b64encode(certificate).decode()
            if key:
                item["data"]["tls.key"] = base64.b64encode(key).decode()
            api.put(SECRET, item, manager="kubectl-edit")
            await until(lambda: data(api) == right)
        await installed(api, cluster)
        assert len(await events(api, cluster, "Restored")) == 1
        reverted = " ".join(await events(api, cluster, "DriftReverted"))
        assert "data.tls.crt: (values not shown)" in reverted
        assert "kubectl-edit" in reverted
        assert condition(cluster).status


async def test_the_condition_tells_what_is_wrong_with_the_secret_of_somebody_else(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    now = time.time()
    old = Authority.create("somebody else", now=now).issue(LEAVES[1], now=now)
    directory = await asyncio.to_thread(made, folder / "pki")
    authority = await asyncio.to_thread(directory.authority, 1)
    late = authority.issue(LEAVES[1], now=now, lifetime=0.0)
    soon = authority.issue(LEAVES[1], now=now + 1000)
    api.faults.append(Fault("PATCH", "/secrets/", status=403))
    async with keeping(client_of, folder / "pki") as cluster:
        await until(lambda: condition(cluster).reason == "Missing")
        for pair, reason in ((old, "UnknownAuthority"), (late, "Expired"), (soon, "NotYetValid")):
            entries = {"tls.crt": pair.certificate, "tls.key": pair.key}
            encoded = {name: base64.b64encode(each).decode() for name, each in entries.items()}
            item = {"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": encoded}
            api.put(SECRET, item | {"type": "kubernetes.io/tls"})
            await until(lambda reason=reason: condition(cluster).reason == reason)
            assert condition(cluster).status is False
        item["data"] = {**encoded, "tls.key": base64.b64encode(old.key).decode()}
        api.put(SECRET, item)
        await until(lambda: condition(cluster).reason == "Damaged")


async def test_what_is_immutable_is_made_anew(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    item: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {}, "type": "Opaque"}
    api.put(SECRET, item | {"data": {"tls.crt": "AAAA"}}, manager="kubectl-create")
    await asyncio.to_thread(made, folder / "pki")
    async with keeping(client_of, folder / "pki") as cluster:
        await until(lambda: (api.get(SECRET) or {}).get("type") == "kubernetes.io/tls")
        await installed(api, cluster)
        right, frozen = data(api), copy.deepcopy(api.get(SECRET) or {})
        frozen["data"]["tls.crt"] = "AAAA"
        frozen["immutable"] = True
        api.put(SECRET, frozen, manager="kubectl-edit")
        await until(lambda: data(api) == right)


async def test_a_certificate_that_is_due_is_renewed(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    pki = folder / "pki"
    async with keeping(client_of, pki) as cluster:
        await installed(api, cluster)
        counters, bundle = cluster.reconciler.counters, (api.get(BUNDLE) or {})["data"]
        first = await asyncio.to_thread(soon_due, pki)
        await until(lambda: counters.certificates_issued)
        await until(lambda: data(api) == (pki / "agent" / "tls.crt").read_bytes() != first)
        await installed(api, cluster)
        (message,) = await events(api, cluster, "Rotated")
        assert message.startswith("Another certificate: data.tls.crt: (values not shown)")
        assert (api.get(BUNDLE) or {})["data"] == bundle
        assert condition(cluster).status
        assert counters.certificates_issued == 1
        shown = {"": cluster.figures(tuple(cluster.conditions.current.values()))}
        page = render_metrics(families(counters, shown, leading=True)).decode()
        assert 'certificate_not_after_timestamp_seconds{cluster="",role="agent"}' in page
        assert "konnectivity_manager_certificates_issued_total 1" in page


async def test_a_certificate_that_is_always_due_is_not_renewed_in_a_circle(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    """A lifetime below the backdating: each new certificate is past two thirds of its life."""
    await asyncio.to_thread(made, folder / "pki", lifetime=60.0)
    async with keeping(client_of, folder / "pki") as cluster:
        await installed(api, cluster)
        counters, started = cluster.reconciler.counters, time.monotonic()
        before = counters.certificates_issued
        await until(lambda: counters.certificates_issued > before + 2)
        turns = (counters.certificates_issued - before) / len(LEAVES)
        assert turns <= 1 + (time.monotonic() - started) / (REST * 0.1)


async def test_an_annotation_asks_for_another_certificate_once(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    pki = folder / "pki"
    async with keeping(client_of, pki) as cluster:
        await installed(api, cluster)
        for path in (SECRET, WORKLOAD):
            before = data(api)
            annotate(api, path, f"because of {path}")
            await until(lambda before=before: data(api) != before)
        await installed(api, cluster)
        assert cluster.reconciler.counters.certificates_issued == 2
        last = data(api)
        await passes()
        assert data(api) == last
    async with keeping(client_of, pki) as cluster:
        await until(lambda: condition(cluster).status)
        await passes()
        assert data(api) == last
        annotate(api, SECRET, "again")
        await until(lambda: data(api) != last)


async def test_an_empty_directory_does_not_take_a_cluster_its_certificate(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    """A volume that was not mounted must not lock all agents out."""
    async with keeping(client_of, folder / "pki") as cluster:
        await installed(api, cluster)
        right = data(api)
    async with keeping(client_of, folder / "empty") as cluster:
        await until(lambda: condition(cluster).reason == "DirectoryFailed")
        assert "holds no CA, but agents in the cluster have a certificate" in (
            condition(cluster).message
        )
        api.remove(SECRET)
        await until(lambda: data(api) == right)
        api.remove(ACCOUNT)
        await until(lambda: api.get(ACCOUNT))
        assert not (folder / "empty").exists()
        assert await events(api, cluster, "CertificatesFailed") == [condition(cluster).message]


async def test_a_directory_that_goes_under_way_is_not_made_anew(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    async with keeping(client_of, folder / "pki") as cluster:
        await installed(api, cluster)
        right = data(api)
        api.faults.append(Fault("PATCH", "/secrets/", status=403))
        api.remove(SECRET)
        (folder / "pki").rename(folder / "elsewhere")
        await until(lambda: condition(cluster).reason == "DirectoryFailed")
        await passes()
        assert not (folder / "pki").exists()
        (folder / "elsewhere").rename(folder / "pki")
        api.faults.clear()
        await until(lambda: data(api) == right and condition(cluster).status)


async def test_a_directory_that_is_damaged_is_said_and_taken_up_again_when_it_is_whole(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    pki = folder / "pki"
    await asyncio.to_thread(made, pki)
    state = (pki / "state.json").read_bytes()
    async with keeping(client_of, pki) as cluster:
        await installed(api, cluster)
        right = data(api)
        (pki / "state.json").write_text("{")
        await until(lambda: condition(cluster).reason == "DirectoryFailed")
        assert "state.json: damaged" in condition(cluster).message
        api.remove(SECRET)
        await until(lambda: data(api) == right)
        (pki / "state.json").write_bytes(state)
        await until(lambda: condition(cluster).status)
        assert cluster.reconciler.counters.certificate_failures > 0


async def test_a_command_that_is_just_changing_the_directory_is_waited_for(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    pki = folder / "pki"
    async with keeping(client_of, pki) as cluster:
        await installed(api, cluster)
        right = data(api)
        with files.locked(pki):
            annotate(api, SECRET, "now")
            await passes()
            assert condition(cluster).status
            assert data(api) == right
        await until(lambda: data(api) != right)
        assert cluster.reconciler.counters.certificate_failures == 0


async def test_who_does_not_lead_writes_no_file(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    lead = asyncio.Event()
    async with keeping(client_of, folder / "pki", may_write=lead.is_set) as cluster:
        await passes()
        assert not (folder / "pki").exists()
        assert condition(cluster).status is None
        lead.set()
        cluster.wake()
        await installed(api, cluster)
        assert condition(cluster).status


async def test_without_certificates_in_the_specification_none_are_made(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    spec = dataclasses.replace(SPEC, authentication="token")
    async with keeping(client_of, folder / "pki", spec) as cluster:
        await until(lambda: api.get(WORKLOAD))
        assert api.get(SECRET) is None
        assert not (folder / "pki").exists()
        assert "CertificatesValid" not in cluster.conditions.current
        cluster.specify(SPEC)
        await until(lambda: api.get(SECRET) and condition(cluster).status)


async def test_a_missing_right_on_secrets_is_named_and_the_rest_is_kept(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    api.faults.append(Fault("GET", "/secrets", status=403, reason="Forbidden"))
    await asyncio.to_thread(made, folder / "pki")
    async with keeping(client_of, folder / "pki") as cluster:
        await until(lambda: api.get(WORKLOAD) and api.get(BUNDLE))
        assert condition(cluster).status is None
        assert condition(cluster).message.endswith(
            "allow get, list, watch on secrets in namespace kube-system (RBAC)"
        )


async def test_a_cluster_follows_the_phases_of_another_ca(
    api: KubeApi, client_of: Connect, folder: Path
) -> None:
    pki = folder / "pki"
    await asyncio.to_thread(made, pki)

    def step() -> None:
        with Directory.changing(pki) as directory:
            advance(directory, now=time.time(), tell=lambda _: None, after=0.0)

    def trusted() -> str:
        return str((api.get(BUNDLE) or {})["data"]["ca.crt"])

    async with keeping(client_of, pki) as cluster:
        await installed(api, cluster)
        first, old = data(api), trusted()
        item = api.get(BUNDLE) or {}
        item["data"]["note"] = "another CA's name"  # what others add is theirs
        api.put(BUNDLE, item, manager="kubectl-edit")
        await asyncio.to_thread(step)
        await until(lambda: trusted().count("BEGIN") == 2)
        assert data(api) == first
        await until(lambda: (pki / "cluster.json").exists())
        await asyncio.to_thread(followed, step)
        await until(lambda: data(api) != first)
        assert old in trusted()
        await asyncio.to_thread(followed, step)
        await until(lambda: trusted().count("BEGIN") == 1)
        assert old not in trusted()
        await until(lambda: condition(cluster).status)


def followed(step: Callable[[], None]) -> None:
    """Take a step of a rotation, as soon as the cluster has followed the one before."""
    for _ in range(200):
        with contextlib.suppress(CertificateError):
            return step()
        time.sleep(0.05)
    return step()


def test_agents_trust_the_cas_of_the_directory_and_those_of_the_specification() -> None:
    one, two = (
        "-----BEGIN CERTIFICATE-----\nMQ==\n-----END CERTIFICATE-----",
        ("-----BEGIN CERTIFICATE-----\nMg==\n-----END CERTIFICATE-----"),
    )
    assert united(f"{one}\n", f"# a comment\n{two}\n{one}") == f"{one}\n{two}\n"
    spec = dataclasses.replace(SPEC, ca_bundle=two)
    items = {key_of(item).kind: item for item in render_with(spec, Material("c", "k", one))}
    assert items["ConfigMap"]["data"]["ca.crt"] == f"{one}\n{two}\n"
    assert list(items).index("Secret") < list(items).index("DaemonSet")


def test_a_certificate_makes_no_new_pods() -> None:
    """The workload is the same whatever the Secret holds."""
    plain = dataclasses.replace(SPEC, ca_bundle="x")
    workloads = [
        next(item for item in items if item["kind"] == "DaemonSet")
        for items in (
            render(plain),
            render_with(SPEC, Material()),
            render_with(SPEC, Material("c")),
        )
    ]
    assert workloads[0] == workloads[1] == workloads[2]


def test_no_key_is_shown() -> None:
    assert "k-e-y" not in repr(Material("certificate", "k-e-y", "bundle"))


def test_a_command_that_ends_keeps_no_certificates() -> None:
    for flag in ("once", "dry_run"):
        given: dict[str, Any] = {flag: True, "pki_directory": "pki", "spec": "x"}
        assert [line for line in validate(ManagerOptions(**given)) if "--pki-directory" in line]
    assert not validate(ManagerOptions(spec="x", pki_directory="pki"))
