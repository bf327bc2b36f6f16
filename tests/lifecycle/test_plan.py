"""What a plan does for each way in which a cluster may differ from what is wanted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.lifecycle.objects import OVERRIDES, Object, binding, changed, container_of, desired
from tests.lifecycle.objects import workload as wanted_workload
from tests.peers import field_ownership

from konnectivity.lifecycle.reconciling.apply import taken_over
from konnectivity.lifecycle.reconciling.fields import leaves, owned, show, value_at, within, without
from konnectivity.lifecycle.reconciling.plan import (
    MANAGER,
    PAUSED,
    Action,
    Key,
    Known,
    Reason,
    is_paused,
    is_premature,
    key_of,
    plan,
)
from konnectivity.lifecycle.reconciling.suspects import UNKNOWN, suspects


def applied(item: Object, live: Object | None = None) -> Object:
    """The object in the cluster after we have applied `item`."""
    return field_ownership.apply(live, item, manager=MANAGER, force=True)


def edited(live: Object, item: Object, by: str = "kubectl-edit") -> Object:
    return field_ownership.update(live, item, manager=by)


def one(item: Object, live: Object | None, **options: Any) -> Action | None:
    """The action for one object."""
    actions = plan([item], {key_of(item): live}, **options)
    return actions[0] if actions else None


def test_what_was_never_there_is_installed_in_order() -> None:
    objects = desired()
    actions = plan(objects, dict.fromkeys(map(key_of, objects)))
    assert [action.body for action in actions] == objects
    assert {action.reason for action in actions} == {Reason.INSTALL}


def test_what_was_there_is_restored() -> None:
    item = wanted_workload()
    action = one(item, None, known=Known(seen={key_of(item)}))
    assert action is not None
    assert action.reason is Reason.RESTORE


def test_after_a_restart_of_ours_what_is_missing_beside_our_objects_is_restored() -> None:
    account, _, workload = desired()
    actions = plan([account, workload], {key_of(account): applied(account), key_of(workload): None})
    assert [(action.key.kind, action.reason) for action in actions] == [
        ("DaemonSet", Reason.RESTORE)
    ]


SPACE = Key("v1", "Namespace", "", "heartbeats")
GOING = {"metadata": {"name": "heartbeats", "deletionTimestamp": "2025-01-01T12:00:00Z"}}


@pytest.mark.parametrize(
    ("spaces", "premature"),
    [
        ({}, False),
        ({SPACE: None}, True),
        ({SPACE: GOING}, True),
        ({SPACE: {"metadata": {"name": "heartbeats"}}}, False),
    ],
)
def test_an_object_waits_for_its_namespace_if_that_is_ours_to_make(
    spaces: dict[Key, Any], premature: bool
) -> None:
    role = Key("rbac.authorization.k8s.io/v1", "Role", "heartbeats", "agent")
    assert is_premature(role, spaces) is premature
    assert not is_premature(role._replace(namespace="kube-system"), spaces)
    assert not is_premature(SPACE, spaces)


def test_of_what_nothing_is_known_nothing_is_done() -> None:
    assert plan(desired(), {}) == []


def test_when_all_is_as_wanted_there_is_nothing_to_do() -> None:
    objects = desired()
    assert plan(objects, {key_of(item): applied(item) for item in objects}) == []


def test_what_others_add_is_theirs() -> None:
    item = wanted_workload()
    live = applied(item)
    more = copy.deepcopy(live)
    more["metadata"]["labels"]["team"] = "red"
    more["spec"]["template"]["spec"]["containers"].append({"name": "mesh", "image": "mesh:1"})
    container_of(more)["env"].append({"name": "MORE", "value": "1"})
    container_of(more)["terminationMessagePath"] = "/dev/termination-log"
    more["status"] = {"numberReady": 3}
    assert one(item, edited(live, more)) is None


def test_drift_names_the_field_and_who_wrote_it() -> None:
    item = wanted_workload()
    live = applied(item)
    action = one(item, edited(live, changed(live, image="evil:1")))
    assert action is not None
    assert action.reason is Reason.DRIFT
    (line,) = action.lines()
    assert line == (
        'spec.template.spec.containers[konnectivity-agent].image: "evil:1" -> '
        '"registry.example/agent:1"'
    )
    assert action.writers[0].startswith("kubectl-edit (Update at ")


@pytest.mark.parametrize("args", [["--sync-forever"], [], ["--other", "--sync-forever"]])
def test_a_list_without_keys_is_compared_as_a_whole(args: list[str]) -> None:
    item = wanted_workload()
    live = applied(item)
    action = one(item, edited(live, changed(live, args=args)))
    assert action is not None
    assert [show(change.path) for change in action.changes] == [
        "spec.template.spec.containers[konnectivity-agent].args"
    ]


def test_more_in_a_field_that_somebody_replaced_is_drift_and_in_ours_a_default() -> None:
    item = wanted_workload()
    live = applied(item)
    more = copy.deepcopy(live)
    more["spec"]["template"]["spec"]["tolerations"] = [{"operator": "Exists", "key": "few"}]
    assert one(item, more) is None  # ours still: the API has filled it in
    action = one(item, edited(live, more))
    assert action is not None
    assert action.reason is Reason.DRIFT
    assert one(item, edited(live, more), overrides=OVERRIDES) is None


def test_a_removed_field_is_drift_of_an_object_that_was_as_wanted() -> None:
    item = wanted_workload()
    live = applied(item)
    less = copy.deepcopy(live)
    del less["metadata"]["labels"]["app"]
    action = one(item, edited(live, less), known=Known(confirmed={key_of(item)}))
    assert action is not None
    assert action.reason is Reason.DRIFT
    assert action.lines() == ['metadata.labels.app: (none) -> "konnectivity-agent"']
    assert action.writers == ["unknown: a removed field has no owner"]


def test_another_specification_of_ours_is_an_upgrade_and_no_drift() -> None:
    live = applied(wanted_workload())
    action = one(wanted_workload("registry.example/agent:2"), live)
    assert action is not None
    assert action.reason is Reason.UPGRADE


def test_a_field_that_we_no_longer_want_is_an_upgrade() -> None:
    old, new = wanted_workload(), wanted_workload()
    old["spec"]["template"]["spec"]["hostNetwork"] = True
    action = one(new, applied(old))
    assert action is not None
    assert action.reason is Reason.UPGRADE
    assert action.lines() == ["spec.template.spec.hostNetwork: true -> (none)"]
    assert one(new, applied(new, applied(old))) is None


def test_another_writer_with_our_field_manager_is_found_out() -> None:
    item = wanted_workload()
    live = applied(wanted_workload("other:1"), applied(item))
    action = one(item, live, known=Known(confirmed={key_of(item)}))
    assert action is not None
    assert action.reason is Reason.DRIFT
    assert action.writers[0].startswith("another writer that calls itself konnectivity-manager")


def test_an_allowed_override_is_left_alone_even_when_something_else_is_reverted() -> None:
    item = wanted_workload()
    live = applied(item)
    more = changed(live, resources={"requests": {"cpu": "2"}, "limits": {"memory": "64Mi"}})
    more["spec"]["template"]["spec"]["tolerations"] = []
    live = edited(live, more)
    assert one(item, live, overrides=OVERRIDES) is None
    action = one(item, edited(live, changed(live, image="evil:1")), overrides=OVERRIDES)
    assert action is not None
    assert len(action.changes) == 1
    after = applied(action.body, live)
    assert container_of(after)["resources"]["requests"] == {"cpu": "2"}
    assert container_of(after)["image"] == "registry.example/agent:1"
    assert after["spec"]["template"]["spec"]["tolerations"] == []


def test_without_leave_the_same_change_is_drift() -> None:
    item = wanted_workload()
    live = applied(item)
    more = changed(live, resources={"requests": {"cpu": "2"}, "limits": {"memory": "64Mi"}})
    action = one(item, edited(live, more))
    assert action is not None
    assert action.reason is Reason.DRIFT


def test_our_own_change_of_a_field_that_users_may_override_is_made() -> None:
    new = wanted_workload()
    container_of(new)["resources"]["requests"]["cpu"] = "50m"
    action = one(new, applied(wanted_workload()), overrides=OVERRIDES)
    assert action is not None
    assert action.reason is Reason.UPGRADE


def test_what_the_api_made_of_our_value_is_as_good_until_it_changes() -> None:
    item = wanted_workload()
    container_of(item)["resources"]["requests"]["cpu"] = "0.01"
    live = applied(wanted_workload(), applied(item))  # 10m
    path = next(path for path, _ in leaves(item) if show(path).endswith("requests.cpu"))
    known = Known(settled={key_of(item): {path: "10m"}})
    assert one(item, live, known=known) is None
    more = changed(live, resources={"requests": {"cpu": "1"}, "limits": {"memory": "64Mi"}})
    assert one(item, edited(live, more), known=known) is not None


def test_values_that_may_be_secret_are_not_shown() -> None:
    item = wanted_workload()
    live = applied(item)
    more = copy.deepcopy(live)
    container_of(more)["env"][0]["value"] = "http://thief:hidden@proxy"
    action = one(item, edited(live, more))
    assert action is not None
    text = "".join(action.lines())
    assert "HTTPS_PROXY" in text
    assert "secret" not in text
    assert "hidden" not in text


def test_values_of_secrets_are_not_shown() -> None:
    meta = {"name": "konnectivity-agent", "namespace": "kube-system"}
    item = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"tls.key": "b3Vycw=="}}
    live = applied(item)
    action = one(item, edited(live, {**live, "data": {"tls.key": "dGhlaXJz"}}))
    assert action is not None
    assert action.lines() == ["data.tls.key: (values not shown)"]


def test_what_is_being_deleted_is_waited_for() -> None:
    item = wanted_workload()
    live = applied(item)
    live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert one(item, changed(live, image="evil:1")) is None


def test_another_role_of_a_binding_needs_a_new_binding() -> None:
    item = binding()
    other = binding()
    other["roleRef"]["name"] = "cluster-admin"
    action = one(item, edited({}, other, by="kubectl"))
    assert action is not None
    assert action.recreate


def foreign_install() -> Object:
    """As another installer would have left it: other selector, other container."""
    item = wanted_workload("upstream:1")
    item["metadata"]["labels"] = {"k8s-app": "konnectivity-agent"}
    item["spec"]["selector"] = {
        "matchLabels": {"k8s-app": "konnectivity-agent", "kamaji.clastix.io/tenant": "blue"},
        "matchExpressions": [{"key": "app", "operator": "DoesNotExist"}],
    }
    item["spec"]["template"]["metadata"]["labels"] = {
        "k8s-app": "konnectivity-agent",
        "kamaji.clastix.io/tenant": "blue",
    }
    container_of(item)["name"] = "konnectivity-agent-container"
    item["spec"]["template"]["spec"]["hostNetwork"] = True
    return field_ownership.update(None, item, manager="k0s")


def test_an_adopted_workload_keeps_its_selector_and_its_pods_match_it() -> None:
    live = foreign_install()
    action = one(wanted_workload(), live)
    assert action is not None
    assert action.reason is Reason.ADOPT
    assert action.body["spec"]["selector"] == live["spec"]["selector"]
    assert action.body["spec"]["template"]["metadata"]["labels"] == {
        "k8s-app": "konnectivity-agent",
        "kamaji.clastix.io/tenant": "blue",
    }


def test_nothing_of_the_former_installer_stays_in_the_pods() -> None:
    live = foreign_install()
    action = one(wanted_workload(), live, overrides=OVERRIDES)
    assert action is not None
    entries = taken_over(live, api_version="apps/v1", keep=OVERRIDES)
    assert entries is not None
    live["metadata"]["managedFields"] = entries
    after = applied(action.body, live)
    pod = after["spec"]["template"]["spec"]
    assert [each["name"] for each in pod["containers"]] == ["konnectivity-agent"]
    assert "hostNetwork" not in pod
    assert one(wanted_workload(), after, overrides=OVERRIDES) is None
    kept = [
        path for each in entries if each["manager"] == "k0s" for path in owned(each["fieldsV1"])
    ]
    assert kept
    assert all(path[0] == "f:metadata" or within(path, OVERRIDES) for path in kept)


def test_an_object_that_somebody_created_just_so_is_made_ours_once() -> None:
    item = binding()
    live = edited({}, item, by="kubectl")
    action = one(item, live)
    assert action is not None
    assert (action.reason, action.changes) == (Reason.ADOPT, ())
    assert one(item, applied(item, live)) is None


@pytest.mark.parametrize(
    ("value", "paused"), [("true", True), ("", True), ("no", True), ("false", False), (None, False)]
)
def test_an_annotation_of_the_workload_pauses(value: str | None, paused: bool) -> None:
    item = wanted_workload()
    if value is not None:
        item["metadata"]["annotations"] = {PAUSED: value}
    account = Key("v1", "ServiceAccount", "kube-system", "konnectivity-agent")
    assert is_paused({key_of(item): item, account: None}) is paused


def test_fields_have_paths_for_people_and_back() -> None:
    item = wanted_workload()
    for path, value in leaves(item):
        assert value_at(item, path) == value
        assert value_at(without(item, [path]), path) is not value or value == {}
    shown = [show(path) for path, _ in leaves(item)]
    assert "spec.template.spec.containers[konnectivity-agent].ports[8093/TCP].name" in shown
    assert len(shown) == len(set(shown))


def test_who_may_delete_an_object_is_read_from_its_marks() -> None:
    live = applied(wanted_workload())
    assert suspects(live) == [UNKNOWN]
    live["metadata"]["labels"]["k0s.k0sproject.io/stack"] = "konnectivity"
    live["metadata"]["ownerReferences"] = [{"kind": "ConfigMap", "name": "gone"}]
    more = copy.deepcopy(live)
    more["metadata"]["annotations"] = {"x": "y"}
    found = suspects(edited(live, more, by="pruner"))
    assert found[0] == "k0s (k0s.k0sproject.io/stack)"
    assert found[1] == "the garbage collector, for its owner ConfigMap gone"
    assert found[2].startswith("pruner (Update")
