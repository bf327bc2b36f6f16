"""Specifications: the file, what is wrong with one, and the sizes that follow from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.lifecycle.specs import CA, PLAIN, every

from konnectivity.errors import ConfigError
from konnectivity.lifecycle.specification import sizing
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.lifecycle.specification.spec_check import problems
from konnectivity.lifecycle.specification.spec_file import load, read

MINIMAL = 'server = "konnectivity.example.com:8091"\nimage = "registry.example.com/k:1"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agents.toml"


def test_a_file_needs_only_server_and_image(file: Path) -> None:
    file.write_text(MINIMAL)
    assert load(file) == dataclasses.replace(PLAIN, heartbeats=True)


def test_a_file_may_set_every_kind_of_value(file: Path) -> None:
    (file.parent / "ca.crt").write_text(CA)
    file.write_text(
        MINIMAL
        + """
mode = "deployment"
nodes = 300
count-leases = true
drain-timeout = "1m30s"
tolerations = ["*"]
ca-bundle = "@ca.crt"
labels = {team = "network", tier = "system"}
server-count = 3  # of the control plane: the same file serves both
"""
    )
    spec = load(file)
    assert (spec.mode, spec.nodes, spec.count_leases) == ("deployment", 300, True)
    assert (spec.drain_timeout, spec.tolerations, spec.ca_bundle) == (90.0, ("*",), CA)
    assert spec.labels == ("team=network", "tier=system")


def test_a_duration_may_be_a_number_of_seconds(file: Path) -> None:
    file.write_text(MINIMAL + "drain-timeout = 40\n")
    assert load(file).drain_timeout == 40.0


def test_all_that_is_wrong_with_a_file_is_told_at_once(file: Path) -> None:
    file.write_text(
        'image = 5\nmod = "daemonset"\nnodes = "many"\nmonitoring = 1\ntolerations = "*"\n'
        'drain-timeout = "soon"\nca-bundle = "@absent.crt"\nlabels = {a = 1}\nzones = true\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(file)
    text = str(caught.value)
    assert "\n" not in text
    for each in (
        f"{file}: ",
        "image must be a text, not 5",
        'unknown key "mod" (did you mean mode?)',
        'nodes must be a whole number, not "many"',
        "monitoring must be true or false, not 1",
        'tolerations must be a list of texts, not "*"',
        "drain-timeout a duration is a number with a unit",
        f"{file.parent / 'absent.crt'}: No such file or directory",
        "labels must be a list of texts, not [1]",
        "zones must be a whole number, not True",
        "server must be set",
    ):
        assert each in text


@pytest.mark.parametrize("content", ["= 1", "a = [", b"\xff\xfe\x00"])
def test_a_file_that_is_no_toml_is_one_line(file: Path, content: str | bytes) -> None:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match="it is not TOML"):
        read(file)


def test_a_file_that_is_not_there_is_one_line(file: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        load(file)


def test_the_specifications_of_the_tests_are_sound() -> None:
    for spec in every():
        wrong = problems(spec)
        if spec.network_policy:
            assert not spec.host_network
        assert wrong == []


BAD: list[tuple[dict[str, Any], str]] = [
    ({"server": ""}, "server must be set"),
    ({"server": "a b:1"}, 'server "a b:1" is not host:port'),
    ({"server": "https://k.example.com"}, "is not host:port"),
    ({"server": "k:http"}, "must have a port from 1 to 65535"),
    ({"server": "k:70000"}, "must have a port from 1 to 65535"),
    ({"server": "k:0"}, "must have a port from 1 to 65535"),
    ({"server_addresses": ("k.example.com",)}, '"k.example.com" is not an IP address'),
    ({"server": "192.0.2.1:8091", "server_addresses": ("192.0.2.2",)}, "given by name"),
    ({"image": ""}, "image must be set"),
    ({"image": "a b"}, "must not contain blanks"),
    ({"ca_bundle": "nonsense"}, "ca-bundle is not a PEM text with certificates"),
    ({"ca_bundle": "-----BEGIN PRIVATE KEY-----"}, "ca-bundle holds a private key"),
    ({"mode": "pod"}, 'mode must be daemonset or deployment, not "pod"'),
    ({"authentication": ""}, "authentication must be token, certificate or both"),
    ({"dns_policy": "None"}, "dns-policy must be"),
    ({"audience": ""}, "audience must be set"),
    ({"server_user": ""}, "server-user must be set"),
    ({"nodes": -1}, "nodes must be >= 0, got -1"),
    ({"replicas": 3}, "replicas are for mode deployment"),
    ({"drain_timeout": 0.0}, "drain-timeout must be > 0"),
    ({"memory_limit": "64 MB"}, 'memory-limit "64 MB" is not a quantity'),
    ({"memory_request": "1Gi"}, "memory-limit 352Mi must not be below memory-request 1Gi"),
    ({"environment": ("https_proxy=http://a:b",)}, "HTTPS_PROXY must be a URL"),
    ({"namespace": "Kube"}, 'namespace "Kube" must be'),
    ({"name": ""}, 'name "" must be'),
    ({"image_pull_secrets": ("A",)}, '"A" is not the name of an object'),
    ({"node_selector": ("-a=b",)}, 'node-selector: "-a=b" is not key=value'),
    ({"labels": ("a=b c",)}, 'labels: "a=b c" is not key=value'),
    ({"environment": ("HTTPS_PROXY",)}, '"HTTPS_PROXY" is not NAME=value'),
    ({"tolerations": ("a:Never",)}, 'tolerations: "a:Never": expected key'),
    ({"tolerations": ("a:NoSchedule@5",)}, "@seconds is for the effect NoExecute"),
    ({"identifiers": "host=$(HOSTNAME)"}, "$(HOSTNAME) is none of"),
    ({"overrides": ("replicas",)}, 'overrides: "replicas" is not a path'),
    ({"extra_arguments": ("--ca-cert=x",)}, "--ca-cert follows from the other settings"),
    ({"extra_arguments": ("--no-such-flag=1",)}, "is no flag of the agent"),
    ({"extra_arguments": ("--max-tunnels",)}, "--max-tunnels needs its value behind a ="),
    ({"extra_arguments": ("--max-tunnels=x",)}, "not an integer"),
    ({"destinations": ("10.0.0.1/8",)}, '"10.0.0.1/8" is not a network'),
    ({"network_policy": True}, "network-policy needs destinations"),
]


@pytest.mark.parametrize(("change", "expected"), BAD, ids=lambda each: str(each)[:50])
def test_a_mistake_is_one_line_that_names_it(change: dict[str, Any], expected: str) -> None:
    found = problems(dataclasses.replace(PLAIN, **change))
    assert len(found) == 1, found
    assert expected in found[0]
    assert "\n" not in found[0]


def test_a_policy_for_pods_on_the_nodes_network_is_refused() -> None:
    change = {"network_policy": True, "destinations": ("10.0.0.0/8",), "host_network": True}
    (found,) = problems(dataclasses.replace(PLAIN, **change))
    assert "has no effect" in found


@pytest.mark.parametrize(
    ("server", "host", "port"),
    [
        ("k.example.com", "k.example.com", 8091),
        ("k.example.com:443", "k.example.com", 443),
        ("192.0.2.1", "192.0.2.1", 8091),
        ("2001:db8::1", "2001:db8::1", 8091),
        ("[2001:db8::1]", "2001:db8::1", 8091),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
    ],
)
def test_a_server_is_a_host_with_or_without_port(server: str, host: str, port: int) -> None:
    spec = AgentSpec(server=server, image="k")
    assert (spec.server_host, spec.server_port) == (host, port)
    assert problems(spec) == []


def test_the_ladder_has_a_floor_of_two_and_of_three_with_zones() -> None:
    assert [sizing.replicas(nodes) for nodes in (0, 1, 2, 100)] == [2, 2, 2, 2]
    assert [sizing.replicas(nodes, zones=3) for nodes in (0, 3, 100)] == [3, 3, 3]
    assert sizing.replicas(100, zones=1) == 2


def test_the_ladder_never_goes_down() -> None:
    counts = [sizing.replicas(nodes) for nodes in range(0, 6000, 50)]
    assert counts == sorted(counts)
    assert counts[-1] == sizing.MOST


def test_a_request_is_what_was_measured_and_the_limit_has_room_for_what_may_be_held() -> None:
    few, many = sizing.size(3, 2), sizing.size(5000, 12)
    leases = sizing.size(3, 2, kubernetes=True)
    assert (few.memory, leases.memory) == ("48Mi", "56Mi")
    assert int(many.memory[:-2]) > int(few.memory[:-2])
    for each in (few, many, leases):
        assert int(each.memory_limit[:-2]) >= int(each.memory[:-2]) + sizing.HELD // sizing.MIB


def test_an_agent_on_each_node_asks_for_the_same_however_many_there_are() -> None:
    assert sizing.size(5, 5) == sizing.size(5000, 5000)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("50m", 0.05), ("1.5k", 1500), ("64Mi", 2**26), ("1G", 1e9), (".5Ki", 512)],
)
def test_quantities_are_those_of_kubernetes(text: str, number: float) -> None:
    assert sizing.quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "1K", "1 Mi", "-1", "1e", "Mi", "1mi"])
def test_other_texts_are_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        sizing.quantity(text)
