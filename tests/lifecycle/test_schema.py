"""Rendered objects against Kubernetes' own schema, in each supported minor."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightkube.models
import pytest
from tests.lifecycle import schema
from tests.lifecycle.schema_extract import merged, types_of
from tests.lifecycle.specs import PLAIN, every

from konnectivity.lifecycle.rendering.render import render

Object = dict[str, Any]

OLDEST, NEWEST = schema.MINORS[0], schema.MINORS[-1]


def test_the_minors_are_those_that_are_said_to_be_supported() -> None:
    assert (OLDEST, len(schema.MINORS)) == ("1.21", 17)
    numbers = [int(minor.split(".")[1]) for minor in schema.MINORS]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    page = Path(__file__).parents[2] / "docs/how-to/install.md"
    assert f"Kubernetes {OLDEST} to {NEWEST}" in " ".join(page.read_text().split())


@pytest.mark.parametrize("minor", schema.MINORS)
def test_every_object_fits_the_schema(minor: str) -> None:
    found = [
        problem
        for spec in every()
        for item in render(spec)
        if item["apiVersion"] != schema.CUSTOM
        for problem in schema.problems(item, minor)
    ]
    assert found == []


def test_the_table_is_what_the_installed_models_say() -> None:
    """They are generated from Kubernetes' OpenAPI, and so is the table, minor by minor."""
    minor = ".".join(version("lightkube-models").split(".")[:2])
    folder = Path(inspect.getfile(lightkube.models)).parent
    modules = {path.stem: path.read_text() for path in folder.glob("*.py")}
    assert minor in schema.MINORS, "write the table anew: tests/lifecycle/schema_extract.py"
    assert schema.types(minor) == types_of(modules)


def daemonset() -> Object:
    (item,) = [each for each in render(PLAIN) if each["kind"] == "DaemonSet"]
    return copy.deepcopy(item)


def pod(item: Object) -> Object:
    found: Object = item["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (
            lambda item: pod(item)["tolerations"][0].update(seconds=5),
            "DaemonSet.spec.template.spec.tolerations[0].seconds is no field",
        ),
        (
            lambda item: item["spec"].update(minReadySeconds="5"),
            "DaemonSet.spec.minReadySeconds: '5' is not int",
        ),
        (
            lambda item: item["spec"].update(minReadySeconds=True),
            "DaemonSet.spec.minReadySeconds: True is not int",
        ),
        (lambda item: item["spec"].pop("selector"), "DaemonSet.spec.selector is missing"),
        (
            lambda item: pod(item).update(containers={}),
            "DaemonSet.spec.template.spec.containers: {} is not a list",
        ),
        (
            lambda item: pod(item).update(nodeSelector={"a": 1}),
            "DaemonSet.spec.template.spec.nodeSelector.a: 1 is not str",
        ),
        (lambda item: item.update(apiVersion="v1"), "v1 DaemonSet is not in Kubernetes 1.21"),
    ],
)
def test_the_schema_tells_what_is_wrong(spoil: Callable[[Object], object], problem: str) -> None:
    item = daemonset()
    spoil(item)
    assert schema.problems(item, OLDEST) == [problem]


def test_the_schema_tells_of_a_field_that_only_later_kubernetes_has() -> None:
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"},
    }
    field = "PodDisruptionBudget.spec.unhealthyPodEvictionPolicy"
    assert schema.problems(budget, "1.25") == [f"{field} is no field"]
    assert schema.problems(budget, "1.26") == []


def test_a_field_that_came_changed_and_went_has_its_spans() -> None:
    table = merged(
        {
            "1.9": {"m.T": {"stays": "str"}},
            "1.10": {"m.T": {"stays": "str", "comes": "int"}},
            "1.11": {"m.T": {"stays": "str", "comes": "int!"}},
            "1.12": {"m.T": {"stays": "str"}},
        }
    )
    spans = {"stays": ["str"], "comes": ["int since 1.10 until 1.10", "int! since 1.11 until 1.11"]}
    assert table == {"minors": ["1.9", "1.10", "1.11", "1.12"], "types": {"m.T": spans}}
