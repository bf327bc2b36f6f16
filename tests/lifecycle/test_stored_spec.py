"""The specification as it is kept at the workload, and read back from it."""

from __future__ import annotations

import json

import pytest
from tests.lifecycle.specs import every

from konnectivity.errors import ConfigError
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.lifecycle.specification.stored_spec import SPECIFICATION, encode, stored


def installed(spec: AgentSpec, text: str) -> dict[str, object]:
    """A workload of `spec` that is annotated with `text`."""
    (item,) = [each for each in render(spec) if each["kind"] in ("DaemonSet", "Deployment")]
    item["metadata"]["annotations"] = {SPECIFICATION: text}
    return item


@pytest.mark.parametrize("spec", list(every()))
def test_what_was_kept_is_read_back_whole(spec: AgentSpec) -> None:
    values = stored(installed(spec, encode(spec)))
    assert values is not None
    assert AgentSpec(**values) == spec


@pytest.mark.parametrize("spec", list(every()))
def test_no_value_of_the_environment_is_copied(spec: AgentSpec) -> None:
    assert "proxy.example.com" not in encode(spec)


def test_only_what_differs_from_the_defaults_is_kept() -> None:
    spec = AgentSpec(server="s", image="i", drain_timeout=600.0)
    assert json.loads(encode(spec)) == {"server": "s", "image": "i", "drain-timeout": 600.0}


def test_keys_of_another_release_are_left_out() -> None:
    spec = AgentSpec(server="s", image="i")
    values = stored(installed(spec, '{"server":"s","colour":"red"}'))
    assert values == {"server": "s", "environment": ()}


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", '{"server":1}', '{"nodes":"many"}', '{"labels":[1]}', '{"nodes":true}'],
)
def test_an_annotation_that_somebody_else_wrote_is_one_clear_error(text: str) -> None:
    item = installed(AgentSpec(server="s", image="i"), text)
    with pytest.raises(ConfigError, match=r"annotation konnectivity/specification of konn.*--spec"):
        stored(item)


def test_a_workload_without_it_says_so() -> None:
    (item,) = [
        each for each in render(AgentSpec(server="s", image="i")) if each["kind"] == "DaemonSet"
    ]
    assert stored(item) is None
