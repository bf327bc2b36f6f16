"""`konnectivity manifests` as a user meets it: output, exit status, mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.lifecycle.specs import CA

from konnectivity.cli.spec_reference import page
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.lifecycle.specification.spec_file import load, read

NEEDED = ("--server=konnectivity.example.com:8091", "--image=registry.example.com/k:1")


def manifests(*argv: str) -> tuple[int, str, str]:
    """Run the command as a process: exit status, stdout, stderr."""
    command = [sys.executable, "-m", "konnectivity", "manifests", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agents.toml"
    path.write_text('server = "konnectivity.example.com"\nimage = "k"\nmode = "deployment"\n')
    return path


def test_the_objects_are_printed_as_yaml() -> None:
    status, out, err = manifests(*NEEDED)
    assert (status, err) == (0, "")
    spec = AgentSpec(server="konnectivity.example.com:8091", image="registry.example.com/k:1")
    assert list(yaml.safe_load_all(out)) == render(spec)


def test_the_objects_are_printed_as_a_json_list() -> None:
    status, out, err = manifests(*NEEDED, "-o", "json")
    assert (status, err) == (0, "")
    listed = json.loads(out)
    assert (listed["apiVersion"], listed["kind"]) == ("v1", "List")
    assert listed["items"] == list(yaml.safe_load_all(manifests(*NEEDED)[1]))


def test_flags_win_over_the_file(file: Path) -> None:
    def printed(*argv: str) -> set[str]:
        objects = yaml.safe_load_all(manifests(f"--spec={file}", *argv)[1])
        return {each["kind"] for each in objects}

    assert "Deployment" in printed()
    assert "DaemonSet" in printed("--mode=daemonset")


def test_a_bundle_is_read_from_a_file_beside_the_specification(file: Path) -> None:
    (file.parent / "ca.crt").write_text("nonsense")
    file.write_text(file.read_text() + 'ca-bundle = "@ca.crt"\n')
    status, out, err = manifests(f"--spec={file}")
    assert (status, out) == (2, "")
    assert err == "Error: ca-bundle is not a PEM text with certificates\n"


def test_every_mistake_has_its_line_wherever_it_was_made(file: Path) -> None:
    file.write_text('nods = 5\nmode = "pod"\n')
    status, out, err = manifests(f"--spec={file}", "-o", "xml", "--frontend=tcp")
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        f'Error: {file}: unknown key "nods" (did you mean nodes?)',
        "Error: server must be set: host:port of the servers for agents",
        "Error: image must be set: the container image with /proxy-agent",
        'Error: mode must be daemonset or deployment, not "pod"',
        'Error: frontend must be grpc or http-connect, not "tcp"',
        'Error: output must be yaml or json, not "xml"',
    ]


def test_a_file_that_is_not_there_is_one_line() -> None:
    assert manifests("--spec=/absent.toml")[::2] == (
        2,
        "Error: /absent.toml: No such file or directory; see konnectivity manifests --help\n",
    )


def test_the_control_planes_files_are_printed_under_their_names() -> None:
    status, out, err = manifests(*NEEDED, "--control-plane")
    assert (status, err) == (0, "")
    names = [line[6:] for line in out.splitlines() if line.startswith("# ==> ")]
    assert names == [
        "konnectivity-server.yaml",
        "kube-apiserver-sidecar.yaml",
        "konnectivity-server.service",
        "egress-selector-configuration.yaml",
        "konnectivity-server.kubeconfig",
    ]
    texts = json.loads(manifests(*NEEDED, "--control-plane", "-o=json")[1])
    assert list(texts) == names
    assert all(text.strip() in out for text in texts.values())


def test_the_control_plane_takes_its_settings_from_the_same_file(file: Path) -> None:
    file.write_text(file.read_text() + 'server-count = 3\nfrontend = "http-connect"\n')
    status, out, err = manifests(f"--spec={file}", "--control-plane")
    assert (status, err) == (0, "")
    assert "--server-count=3" in out
    assert "proxyProtocol: HTTPConnect" in out


def test_the_help_shows_examples_and_all_flags() -> None:
    status, out, err = manifests("--help")
    assert (status, err) == (0, "")
    for each in ("Examples:", "--spec", "--control-plane", "--tolerations", "--api-server"):
        assert each in out


def test_the_page_of_the_specification_is_what_its_generator_prints() -> None:
    command = "python -m konnectivity.cli.spec_reference > docs/reference/agent-spec.md"
    path = Path(__file__).parents[2] / "docs/reference/agent-spec.md"
    assert path.read_text() == page(), f"run {command}"


def test_the_specifications_in_the_pages_are_sound(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    for name in ("how-to/install.md", "reference/agent-spec.md"):
        (text,) = re.findall(r"```toml\n(.*?)```", (docs / name).read_text(), re.DOTALL)
        (tmp_path / "ca.crt").write_text(CA)
        (tmp_path / "agents.toml").write_text(text)
        assert load(tmp_path / "agents.toml").server == "konnectivity.example.com:8091"


def test_the_keys_that_the_guide_mentions_are_keys(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/how-to/install.md").read_text()
    lines = re.findall(r"`([a-z-]+ = [^`]+)`", text)
    assert len(lines) >= 8
    for line in lines:
        (tmp_path / "agents.toml").write_text(line)
        (tmp_path / "ca.crt").write_text(CA)
        values, wrong = read(tmp_path / "agents.toml")
        assert values, line
        assert not wrong, line
