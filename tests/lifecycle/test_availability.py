"""How far a rollout is, and on which pods it waits and why, from what the API shows."""

from __future__ import annotations

from typing import Any

import pytest

from konnectivity.lifecycle.rollouts.availability import judge, trouble

READY = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}


def pod(status: dict[str, Any], name: str = "a", node: str = "n") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"nodeName": node}, "status": status}


def container(**state: Any) -> dict[str, Any]:
    return {"phase": "Running", "containerStatuses": [{"name": "konnectivity-agent", **state}]}


def daemons(wanted: int, updated: int, available: int, *, seen: int = 2) -> dict[str, Any]:
    status = {
        "observedGeneration": seen,
        "desiredNumberScheduled": wanted,
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
    }
    return {"kind": "DaemonSet", "metadata": {"generation": 2}, "spec": {}, "status": status}


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (READY, ""),
        (
            container(state={"waiting": {"reason": "ErrImagePull", "message": "no\nsuch"}}),
            "ErrImagePull: no such",
        ),
        (
            container(
                state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                lastState={"terminated": {"exitCode": 2}},
            ),
            "CrashLoopBackOff: back-off (exit status 2)",
        ),
        (
            container(state={"terminated": {"exitCode": 1, "reason": "Error"}}),
            "has ended: Error (exit status 1)",
        ),
        (container(state={"running": {}}), "runs, and is not ready: it has no server yet"),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]},
            "is not scheduled: 0/3 nodes",
        ),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        ({"phase": "Pending"}, "is Pending"),
        ({}, "is new"),
    ],
)
def test_why_a_pod_is_not_ready(status: dict[str, Any], text: str) -> None:
    assert trouble(pod(status)) == text


def test_a_pod_that_leaves_is_waited_for() -> None:
    leaving = pod(READY)
    leaving["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z"
    assert "is leaving" in trouble(leaving)


def test_pods_are_named_with_their_node_and_no_more_than_five() -> None:
    pods = [pod({"phase": "Pending"}, f"p{number}", f"n{number}") for number in range(7)]
    text = str(judge(daemons(9, 4, 2), [pod(READY), *pods]))
    assert text.startswith("2 of 9 agents are available, 4 of them new; pod p0 on node n0: is")
    assert (text.count("pod p"), text.endswith("; 2 more")) == (5, True)


def test_a_rollout_that_is_over_waits_for_nothing() -> None:
    found = judge(daemons(2, 2, 2), [pod({"phase": "Pending"})])
    assert (found.progress.done, str(found)) == (True, "2 of 2 agents are available")


def test_a_controller_that_has_not_looked_yet_is_waited_for() -> None:
    found = judge(daemons(2, 2, 2, seen=1), [])
    assert not found.progress.done
    assert "controller of the cluster has not looked at it yet" in str(found)


def test_a_daemonset_without_nodes_says_so() -> None:
    assert str(judge(daemons(0, 0, 0), [])) == "0 of 0 agents are available; no node may have one"


def test_what_a_deployments_controller_complains_of_is_told() -> None:
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "exceeded quota",
    }
    status = {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 1,
        "conditions": [condition],
    }
    item = {
        "kind": "Deployment",
        "metadata": {"generation": 1},
        "spec": {"replicas": 2},
        "status": status,
    }
    assert str(judge(item, [])) == (
        "0 of 2 agents are available, 1 of them new, 2 old ones are left; "
        "FailedCreate: exceeded quota"
    )
