"""Clusters in Secrets of a management cluster: those with a label, as Cluster API writes them.

The key `value` or `kubeconfig` holds the kubeconfig, `agents.toml`, if it is there, what this
cluster wants of its own. A watch tells of Secrets that come, change and go.

Source: Cluster API, "Cluster kubeconfig management", for the key `value`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Final

from konnectivity.kube.collection import Collection, Object
from konnectivity.kube.resources import collection_path, rule
from konnectivity.kube.watch import Reflector
from konnectivity.lifecycle.managing.fleet import Fleet
from konnectivity.lifecycle.managing.registration import LARGEST, Registration
from konnectivity.lifecycle.reconciling.observe import REQUEST_BOUNDS, VERBS, WATCHING
from konnectivity.observe.histogram import RequestCounts

if TYPE_CHECKING:
    from lightkube import AsyncClient

KUBECONFIG: Final = ("kubeconfig", "value")
OWN: Final = "agents.toml"


class ClusterSecrets:
    """Registers the clusters of labelled Secrets with `fleet` while `run` runs."""

    def __init__(self, client: AsyncClient, fleet: Fleet, *, namespace: str, selector: str) -> None:
        self._fleet = fleet
        self._namespace = namespace
        self._moved = asyncio.Event()
        self._known: dict[str, tuple[str, Registration]] = {}
        """By name: the version of the Secret, and what it says."""
        self._reflector = Reflector(
            Collection(client, collection_path("v1", "Secret", namespace)),
            selector,
            what=f"Secrets of clusters in namespace {namespace}",
            remedy=rule(VERBS[1:], "v1", "Secret", namespace),
            changed=self._moved.set,
            lists=RequestCounts(REQUEST_BOUNDS),
            watches=RequestCounts(REQUEST_BOUNDS),
            options=WATCHING,
        )

    @property
    def synced(self) -> bool:
        """Whether all Secrets are known."""
        return self._reflector.synced

    @property
    def trouble(self) -> str:
        """Why Secrets cannot be followed; what is known goes on then."""
        return self._reflector.trouble

    async def run(self) -> None:
        """Follow until cancelled."""
        async with self._reflector:
            while True:
                await self._moved.wait()
                self._moved.clear()
                if self.synced:
                    self._register()

    def _register(self) -> None:
        known, self._known = self._known, {}
        for name, secret in self._reflector.objects.items():
            version = str(secret["metadata"].get("resourceVersion"))
            before = known.get(name)
            if before is None or before[0] != version:
                before = (version, _registration(name, self._namespace, secret))
            self._known[name] = before
        self._fleet.replace({name: each for name, (_, each) in self._known.items()})


def _registration(name: str, namespace: str, secret: Object) -> Registration:
    place = f"Secret {namespace}/{name}"
    data = secret.get("data") or {}
    key = next((each for each in KUBECONFIG if data.get(each)), "")
    if not key:
        missing = f"{place}: it has no key {' or '.join(KUBECONFIG)}"
        return Registration(name, place, b"", trouble=missing)
    try:
        kubeconfig, own = (base64.b64decode(data.get(each) or "") for each in (key, OWN))
    except (binascii.Error, TypeError, ValueError):
        return Registration(name, place, b"", trouble=f"{place}: its values are not Base64")
    if len(kubeconfig) + len(own) > 2 * LARGEST:
        return Registration(name, place, b"", trouble=f"{place}: longer than {LARGEST} bytes")
    own_place = f"{place}, key {OWN}"
    return Registration(name, f"{place}, key {key}", kubeconfig, own, own_place)
