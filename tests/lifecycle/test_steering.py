"""The pace of a workload, as it is written into it; how far a rollout is; which pods are new."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from tests.lifecycle.specs import PLAIN
from tests.peers import field_ownership

from konnectivity.lifecycle.objects.workload import workload
from konnectivity.lifecycle.reconciling.plan import MANAGER, WORKLOADS, Action, Key, Reason
from konnectivity.lifecycle.reconciling.prune import removals
from konnectivity.lifecycle.rollouts.generations import is_new, is_ready, mark
from konnectivity.lifecycle.rollouts.progress import progress
from konnectivity.lifecycle.rollouts.steering import STOPPED, Steering, stop

Object = dict[str, Any]
DEPLOYED = replace(PLAIN, mode="deployment", replicas=2)
OVERRIDES = PLAIN.overrides


def applied(item: Object) -> Object:
    return field_ownership.apply(None, copy.deepcopy(item), manager=MANAGER, force=True)


def test_a_stop_is_kubernetes_own_and_takes_nothing_from_what_is_wanted() -> None:
    daemons, deployment = workload(PLAIN), workload(DEPLOYED)
    stopped = stop(daemons, "why")
    assert stopped["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert stopped["metadata"]["annotations"] == {STOPPED: "why"}
    assert stop(deployment, "why")["spec"]["paused"]
    assert daemons == workload(PLAIN)
    assert stopped["spec"]["template"] == daemons["spec"]["template"]


def test_a_stop_of_before_is_kept_for_the_same_template_whatever_users_have_overridden() -> None:
    body = workload(PLAIN)
    live = applied(stop(body, "why"))
    theirs = copy.deepcopy(live)
    theirs["spec"]["template"]["spec"]["tolerations"] = [{"key": "team", "operator": "Exists"}]
    live = field_ownership.update(live, theirs, manager="kubectl-edit")
    steering = Steering(0)
    assert steering.steer(body, live, 0.0, overrides=OVERRIDES) == stop(body, "why")
    assert steering.stopped == "why"


def test_a_stop_of_before_does_not_hold_up_another_template() -> None:
    live = applied(stop(workload(PLAIN), "why"))
    other = workload(replace(PLAIN, image="registry.example.com/k:2"))
    steering = Steering(0)
    assert steering.steer(other, live, 0.0, overrides=OVERRIDES) == other
    assert steering.stopped == ""


def test_another_template_gets_another_chance_and_other_labels_do_not() -> None:
    steering = Steering(0)
    steering.stopped = "why"
    body = workload(PLAIN)
    labelled = copy.deepcopy(body)
    labelled["metadata"]["labels"]["team"] = "net"
    steering.changed(body, labelled)
    assert steering.stopped == "why"
    steering.changed(body, workload(replace(PLAIN, image="registry.example.com/k:2")))
    assert steering.stopped == ""


def test_fewer_replicas_wait_more_do_not_and_users_numbers_are_theirs() -> None:
    body = workload(DEPLOYED)
    live = applied(workload(replace(DEPLOYED, replicas=3)))
    steering = Steering(60.0)
    assert steering.steer(body, live, 100.0)["spec"]["replicas"] == 3
    assert steering.due == 160.0
    assert steering.steer(body, live, 159.0)["spec"]["replicas"] == 3
    assert steering.steer(body, live, 160.0)["spec"]["replicas"] == 2
    more = workload(replace(DEPLOYED, replicas=5))
    assert steering.steer(more, live, 161.0)["spec"]["replicas"] == 5
    assert steering.due is None
    theirs = copy.deepcopy(live)
    theirs["spec"]["replicas"] = 9
    theirs = field_ownership.update(live, theirs, manager="kubectl-scale")
    assert steering.steer(body, theirs, 162.0)["spec"]["replicas"] == 2


def test_a_rollout_is_done_when_its_controller_has_seen_it_and_all_agents_are_new() -> None:
    spec = {"replicas": 2}
    status = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    item = {"kind": "Deployment", "metadata": {"generation": 2}, "spec": spec, "status": status}
    assert progress(item).done
    assert progress({**item, "metadata": {"generation": 3}}).replacing
    assert progress({**item, "status": status | {"replicas": 3}}).left == 1
    assert not progress({**item, "status": status | {"availableReplicas": 1}}).done
    assert not progress({**item, "status": status | {"availableReplicas": 1}}).replacing
    daemons = {"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 1}
    assert progress({"kind": "DaemonSet", "metadata": {}, "spec": {}, "status": daemons}).replacing


def test_pods_are_new_by_the_number_of_the_template_or_the_hash_of_their_replica_set() -> None:
    daemons = {
        "kind": "DaemonSet",
        "metadata": {"annotations": {"deprecated.daemonset.template.generation": "3"}},
    }
    assert mark(daemons, ()) == ("pod-template-generation", "3")
    revision = {"deployment.kubernetes.io/revision": "2"}
    deployment = {"kind": "Deployment", "metadata": {"uid": "u", "annotations": revision}}
    owner = [{"uid": "u"}]
    old, new = (
        {
            "metadata": {
                "labels": {"pod-template-hash": f"h{number}"},
                "annotations": {"deployment.kubernetes.io/revision": str(number)},
                "ownerReferences": owner,
            }
        }
        for number in (1, 2)
    )
    at = mark(deployment, [old, new])
    assert at == ("pod-template-hash", "h2")
    assert is_new({"metadata": {"labels": {"pod-template-hash": "h2"}}}, at)
    assert not is_new({"metadata": {"labels": {"pod-template-hash": "h1"}}}, at)
    assert not is_new({"metadata": {"labels": {}}}, mark(deployment, ()))
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    assert is_ready({"metadata": {}, "status": ready})
    assert not is_ready({"metadata": {"deletionTimestamp": "now"}, "status": ready})


def test_what_is_retired_goes_in_the_other_order_and_the_account_after_the_last_agents() -> None:
    kinds = (
        ("v1", "ServiceAccount"),
        ("v1", "ConfigMap"),
        ("apps/v1", "DaemonSet"),
        ("v1", "Secret"),
        ("v1", "Namespace"),
    )
    items = {
        Key(version, kind, "n", "a"): applied(
            {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "data": {"a": "b"}}
        )
        for version, kind in kinds
    }
    assert not list(removals(items, items, replaced=False))
    found = list(removals(items, items, replaced=True))
    assert [(each.key.kind, each.reason) for each in found] == [("DaemonSet", Reason.REMOVE)]
    gone = {key: None if key.kind in WORKLOADS else item for key, item in items.items()}
    later: list[Action] = list(removals(items, gone, replaced=True))
    assert [each.key.kind for each in later] == ["ConfigMap", "ServiceAccount"]
