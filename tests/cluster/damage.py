"""What people and programs do to objects that are not theirs."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterator
from typing import Final

from tests.cluster.places import Place

from konnectivity.kube.client import failures
from konnectivity.kube.collection import Object, status_of
from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Key

Edit = Callable[[Object], None]


def _give_token(account: Object) -> None:
    account["automountServiceAccountToken"] = True


def _nobody(binding: Object) -> None:
    binding["subjects"] = []


def _no_rules(role: Object) -> None:
    role["rules"] = []


def _other_bundle(bundle: Object) -> None:
    bundle["data"] = {"ca.crt": "none of these"}


def _other_certificate(secret: Object) -> None:
    text = base64.b64encode(b"another one").decode()
    secret["data"] = {"tls.crt": text, "tls.key": text}


def _open(policy: Object) -> None:
    policy["spec"]["egress"] = [{}]


def _other_image(workload: Object) -> None:
    workload["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example.com/evil:1"


def _other_budget(budget: Object) -> None:
    budget["spec"]["maxUnavailable"] = "90%"


def _other_port(service: Object) -> None:
    service["spec"]["ports"][0]["port"] = 4711


def _nothing_watched(monitor: Object) -> None:
    monitor["spec"] = {"selector": {}, "podMetricsEndpoints": []}


def _no_alerts(rule: Object) -> None:
    rule["spec"] = {"groups": []}


def _no_labels(item: Object) -> None:
    item["metadata"]["labels"] = {}


def _no_agents(workload: Object) -> None:
    """A Deployment by its replicas; a DaemonSet, which has none, by nodes that nobody has."""
    if workload["kind"] == "Deployment":
        workload["spec"]["replicas"] = 0
    else:
        pod = workload["spec"]["template"]["spec"]
        pod["nodeSelector"] = dict.fromkeys(pod["nodeSelector"], "no-such-node")


EDITS: Final[dict[str, tuple[str, Edit]]] = {
    "ServiceAccount": ("edited", _give_token),
    "ClusterRoleBinding": ("edited", _nobody),
    "RoleBinding": ("edited", _nobody),
    "Role": ("edited", _no_rules),
    "ConfigMap": ("CA bundle replaced", _other_bundle),
    "Secret": ("certificate replaced", _other_certificate),
    "NetworkPolicy": ("edited", _open),
    "DaemonSet": ("edited", _other_image),
    "Deployment": ("edited", _other_image),
    "PodDisruptionBudget": ("edited", _other_budget),
    "Service": ("edited", _other_port),
    "PodMonitor": ("edited", _nothing_watched),
    "PrometheusRule": ("edited", _no_alerts),
}


def damages(key: Key) -> Iterator[tuple[str, Edit | None]]:
    """What is done to an object, by name; None: it is deleted."""
    yield "deleted", None
    if key.kind in EDITS:  # of a namespace nothing but its labels is ours
        yield EDITS[key.kind]
    yield "labels stripped", _no_labels
    if key.kind in WORKLOADS:
        yield "scaled to 0", _no_agents


async def damage(place: Place, key: Key, edit: Edit | None) -> None:
    """Delete an object, or write over it as `kubectl edit` would."""
    collection = place.collection(key)
    if edit is None:
        await collection.delete(key.name)
        return
    while True:
        item = copy.deepcopy(await collection.get(key.name))
        item["kind"], item["apiVersion"] = key.kind, key.api_version
        edit(item)
        try:
            await collection.replace(item)
        except failures() as error:
            if (status := status_of(error)) is None or status[0] != 409:
                raise
        else:
            return
