"""Where the scenarios take place: a fixture API server, or the cluster that KUBECONFIG names.

In a real cluster all is made in a namespace of its own, under a name of its own, with a node
selector that no node fits: nothing that is there is touched, and nothing runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from tests.cli.command import Commands
from tests.peers import tool
from tests.peers.kube_api import KubeApi
from tests.peers.kubelet import ToldKubelet
from tests.peers.workloads import Workloads

from konnectivity.kube.client import connect, failures
from konnectivity.kube.collection import Collection, Object, status_of
from konnectivity.kube.resources import collection_path
from konnectivity.lifecycle.reconciling.plan import Key
from konnectivity.lifecycle.reconciling.prune import KINDS

if TYPE_CHECKING:
    from lightkube import AsyncClient

SECRET: Final = ("v1", "Secret")
BINDING: Final = Key(
    "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", "system:konnectivity-server"
)
GIVEN: Final = frozenset(["default", "kube-root-ca.crt"])
"""What a cluster puts into each namespace of its own accord."""


@dataclass
class Place:
    """A cluster, and what is ours in it."""

    kubeconfig: Path
    client: AsyncClient
    namespace: str
    heartbeats: str
    """The namespace of heartbeats: one of its own, if there is a controller that empties it."""
    name: str
    version: str
    versions: frozenset[str]
    """Versions of the API that it knows, such as `policy/v1`."""
    token: bool
    """Whether agents may show tokens: that takes a binding that others may have."""
    folder: Path

    def specification(self, mode: str) -> Path:
        """A file that wants every kind of object that the cluster can take."""
        wanted: dict[str, object] = {
            "server": "konnectivity.example.com:8091",
            "image": "registry.example.com/konnectivity:1.0",
            "mode": mode,
            "namespace": self.namespace,
            "name": self.name,
            "lease_namespace": self.namespace,
            "authentication": "both" if self.token else "certificate",
            "count_leases": True,
            "heartbeat_namespace": self.heartbeats,
            "network_policy": True,
            "destinations": ["10.0.0.0/8"],
            "monitoring": "monitoring.coreos.com/v1" in self.versions,
            "node_selector": ["konnectivity.test/none=true"],
            "overrides": [],
        }
        path = self.folder / "agents.toml"
        path.write_text("".join(f"{name} = {json.dumps(each)}\n" for name, each in wanted.items()))
        return path

    def collection(self, key: Key) -> Collection:
        return Collection(self.client, collection_path(key.api_version, key.kind, key.namespace))

    async def get(self, key: Key) -> Object | None:
        try:
            return await self.collection(key).get(key.name)
        except failures() as error:
            if (status := status_of(error)) and status[0] == 404:
                return None
            raise

    async def owned(self) -> list[Key]:
        """All objects with the labels of these agents, and the namespace that they have made."""
        found = []
        for space in dict.fromkeys((self.namespace, self.heartbeats)):
            for api_version, kind in (SECRET, *KINDS):
                if kind == "ClusterRoleBinding" and space != self.namespace:
                    continue
                scope = "" if kind == "ClusterRoleBinding" else space
                place = Collection(self.client, collection_path(api_version, kind, scope))
                with suppress(failures()):  # a kind that the cluster does not know
                    items, _ = await place.list(f"k8s-app={self.name}")
                    names = [each["metadata"]["name"] for each in items]
                    found += [Key(api_version, kind, scope, name) for name in names]
        space = Key("v1", "Namespace", "", self.heartbeats)
        if self.heartbeats != self.namespace and await self.get(space):
            found.append(space)
        return found

    async def kubectl(self, *arguments: str) -> str:
        cache = f"--cache-dir={self.folder}/cache"
        return await tool.run("kubectl", f"--kubeconfig={self.kubeconfig}", cache, *arguments)

    async def left(self) -> list[str]:
        """What another's eyes see of us: all with our labels, and all else in our namespace."""
        everything = await self._kinds()
        ours = await self.kubectl("get", everything, "-A", f"-lk8s-app={self.name}", "-oname")
        inside = await self._kinds("--namespaced=true")
        near = await self.kubectl("get", inside, f"-n{self.namespace}", "-oname")
        if self.heartbeats != self.namespace:
            spaces = await self.kubectl("get", "namespaces", "-oname")
            ours += "".join(f"{each}\n" for each in _names(spaces) if self.heartbeats in each)
        return [*_names(ours), *(each for each in _names(near) if not _is_given(each))]

    async def _kinds(self, *flags: str) -> str:
        """All that there may be objects of, but for Events, which stay for their time."""
        listed = await self.kubectl("api-resources", "--verbs=list,delete", "-oname", *flags)
        return ",".join(each for each in listed.split() if not each.startswith("events"))

    @property
    def commands(self) -> Commands:
        return Commands(self.kubeconfig)


def _names(shown: str) -> list[str]:
    """Lines `kind/name`, without the warnings between them."""
    return [each for each in shown.splitlines() if "/" in each and " " not in each]


def _is_given(shown: str) -> bool:
    """Whether `kind/name` is the cluster's own; tokens of accounts were Secrets once."""
    name = shown.partition("/")[2]
    return name in GIVEN or name.startswith("default-token-")


@asynccontextmanager
async def fixture(folder: Path) -> AsyncIterator[Place]:
    """An API server of our own, with stand-ins for the controllers of workloads."""
    async with KubeApi() as api:
        config = api.kubeconfig(folder)
        name = f"konnectivity-{secrets.token_hex(4)}"
        nodes = ("node-1", "node-2")
        controllers = Workloads(api, ToldKubelet(), nodes=nodes, namespace=name, speed=1000)
        async with controllers, _place(config, name, folder) as place:
            place.heartbeats = f"{name}-heartbeats"
            yield place


@asynccontextmanager
async def real(folder: Path) -> AsyncIterator[Place]:
    """The cluster that KUBECONFIG names."""
    path = os.environ.get("KUBECONFIG", "")
    if not path:
        pytest.fail("KUBECONFIG names no cluster: make e2e KUBECONFIG=/path/to/kubeconfig")
    name = f"konnectivity-test-{secrets.token_hex(4)}"
    async with _place(Path(path), name, folder) as place:
        space = Collection(place.client, "api/v1/namespaces")
        await space.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        try:
            if await _has_controllers(place):
                place.heartbeats = f"{name}-heartbeats"
            yield place
        finally:
            await _clear_up(place, space)


@asynccontextmanager
async def _place(config: Path, name: str, folder: Path) -> AsyncIterator[Place]:
    client = connect(str(config), qps=500, burst=500)
    try:
        place = Place(config, client, name, name, name, "", frozenset(), True, folder)
        place.version = json.loads(await place.kubectl("get", "--raw=/version"))["gitVersion"]
        place.versions = frozenset((await place.kubectl("api-versions")).split())
        place.token = await place.get(BINDING) is None
        yield place
    finally:
        await client.close()


async def _has_controllers(place: Place) -> bool:
    """Whether somebody puts an account into a new namespace, and so empties it in the end."""
    account = Key("v1", "ServiceAccount", place.namespace, "default")
    try:
        async with asyncio.timeout(5):
            while await place.get(account) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False
    return True


async def _clear_up(place: Place, spaces: Collection) -> None:
    """Whatever has failed before, nothing of ours stays."""
    for key in await place.owned():
        with suppress(failures()):
            await place.collection(key).delete(key.name)
    if place.token:
        about = f"involvedObject.name={BINDING.name},source=konnectivity-manager"
        await place.kubectl("delete", "events", "-ndefault", f"--field-selector={about}")
    # Where namespaces are not emptied by a controller, these would stay.
    await place.kubectl("delete", "leases,events", "--all", f"-n{place.namespace}")
    await spaces.delete(place.namespace)


PLACES: Final = {"fixture": fixture, "real": real}


def parameters() -> Iterator[object]:
    """The places as parameters of a test; the real one is for `make e2e`."""
    yield "fixture"
    yield pytest.param("real", marks=pytest.mark.cluster)
