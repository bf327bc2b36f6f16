"""What lies in `deploy/`: it is what the renderer makes, and it amounts to the same objects."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.lifecycle import go_template, schema
from tests.lifecycle.specs import CA

from konnectivity.cli.flags import parse
from konnectivity.demo.egress import egress_selector_configuration
from konnectivity.lifecycle.objects.toleration import parse as parse_toleration
from konnectivity.lifecycle.rendering import control_plane, deploy
from konnectivity.lifecycle.rendering.chart import chart
from konnectivity.lifecycle.rendering.chart_tree import merge
from konnectivity.lifecycle.rendering.render import render
from konnectivity.lifecycle.specification.control_plane_spec import ControlPlaneSpec
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.server.options import ServerOptions, validate

ROOT = Path(__file__).parents[2] / "deploy"
CHART = "helm/konnectivity-agent"


def test_the_folder_is_what_the_renderer_makes() -> None:
    assert deploy.present(ROOT) == deploy.files(), "run make deploy"


def test_a_file_that_is_no_longer_made_is_removed(tmp_path: Path) -> None:
    left = tmp_path / CHART / "templates/left.yaml"
    left.parent.mkdir(parents=True)
    left.touch()
    deploy.write(tmp_path)
    assert deploy.present(tmp_path) == deploy.files()


CHART_FILES = chart()
DEFAULTS = yaml.safe_load(CHART_FILES["values.yaml"])
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def helm(**values: Any) -> list[dict[str, Any]]:
    """The chart's objects with values beside the defaults, as a release in kube-system."""
    server = {"host": "konnectivity.example.com", "port": 8091}
    given = DEFAULTS | {"server": server, "image": "registry.example.com/k:1"} | values
    assert given.keys() == DEFAULTS.keys()
    root = {"Values": given, "Release": {"Namespace": "kube-system"}}
    texts = [text for name, text in CHART_FILES.items() if name.startswith("templates/")]
    found = [yaml.load(go_template.render(text, root), Loader=LOADER) for text in texts]  # noqa: S506
    return sorted(filter(None, found), key=_key)


def rendered(**fields: Any) -> list[dict[str, Any]]:
    server, image = "konnectivity.example.com:8091", "registry.example.com/k:1"
    return sorted(render(AgentSpec(server=server, image=image, **fields)), key=_key)


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def test_the_charts_defaults_are_those_of_a_specification() -> None:
    assert helm() == rendered()
    assert helm(mode="deployment") == rendered(mode="deployment")


@pytest.mark.parametrize("mode", ["daemonset", "deployment"])
@pytest.mark.parametrize("shown", ["token", "certificate", "both"])
def test_the_chart_renders_what_the_renderer_does(mode: str, shown: str) -> None:
    """All combinations of what changes the objects' shape."""
    for leases, beats, host, bundle, monitored in itertools.product((False, True), repeat=5):
        assert helm(
            mode=mode,
            authentication=shown,
            countLeases=leases,
            heartbeats=beats,
            hostNetwork=host,
            caBundle=CA if bundle else "",
            monitoring=monitored,
        ) == rendered(
            mode=mode,
            authentication=shown,
            count_leases=leases,
            heartbeats=beats,
            host_network=host,
            ca_bundle=CA if bundle else "",
            monitoring=monitored,
        )


def test_the_charts_other_values_are_followed() -> None:
    networks = ["10.0.0.0/8", "fd00::/8"]
    assert helm(
        mode="deployment",
        server={"host": "konnectivity.example.com", "port": 443},
        image="other:2",
        replicas=5,
        drainTimeout=40,
        networkPolicy=True,
        destinations=networks,
        extraArguments=["--max-tunnels=100", "--vmodule=a=1"],
        tolerations=[parse_toleration("a=b:NoExecute@5"), parse_toleration("c")],
        nodeSelector={"a/b": "c"},
        resources={"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
    ) == sorted(
        render(
            AgentSpec(
                server="konnectivity.example.com:443",
                image="other:2",
                mode="deployment",
                replicas=5,
                drain_timeout=40.0,
                network_policy=True,
                destinations=tuple(networks),
                extra_arguments=("--max-tunnels=100", "--vmodule=a=1"),
                tolerations=("a=b:NoExecute@5", "c"),
                node_selector=("a/b=c",),
                cpu_request="1",
                memory_request="1Gi",
                memory_limit="2Gi",
            )
        ),
        key=_key,
    )


@pytest.mark.parametrize("missing", [{"image": ""}, {"server": {"host": "", "port": 8091}}])
def test_the_chart_says_what_must_be_set(missing: dict[str, Any]) -> None:
    with pytest.raises(go_template.RequiredError, match="must be set"):
        helm(**missing)


@pytest.mark.parametrize(
    ("base", "one", "other"),
    [
        ({"a": 1}, {"a": 2}, {"a": 3}),
        ({"a": 1}, {}, {}),
        ({}, {"a": 1}, {"a": 2}),
        ([{"name": "a", "b": 1}], [{"name": "a", "b": 2}], [{"name": "a", "b": 3}]),
    ],
)
def test_options_that_change_the_same_value_cannot_be_merged(
    base: Any, one: Any, other: Any
) -> None:
    with pytest.raises(ValueError, match="depends on"):
        merge(base, {"one": one, "other": other})


def test_options_that_make_the_same_of_a_value_share_it() -> None:
    merged = merge({"a": 1}, {"eq 1 1": {"a": 2, "b": 3}, ".x": {"a": 2, "b": 3}})
    assert (merged["a"].condition, merged["b"].condition) == ("or (eq 1 1) (.x)",) * 2


def test_elements_that_look_the_same_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="cannot be told apart"):
        merge(["--a=1", "--a=2"], {"one": ["--a=1"]})


@pytest.mark.parametrize("mode", ["daemonset", "deployment"])
def test_a_kustomization_names_its_files_and_they_are_the_objects(mode: str) -> None:
    folder = ROOT / "kustomize" / mode
    index = yaml.safe_load((folder / "kustomization.yaml").read_text())
    objects = [yaml.safe_load((folder / name).read_text()) for name in index["resources"]]
    assert objects == render(dataclasses.replace(deploy.EXAMPLE, mode=mode))
    assert {path.name for path in folder.iterdir()} - {*index["resources"]} == {
        "kustomization.yaml"
    }


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kustomize_builds_them_with_both_components(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kustomize", tmp_path / "kustomize")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/kustomization.yaml").write_text(
        "resources: [../kustomize/deployment]\n"
        "components: [../kustomize/components/monitoring, "
        "../kustomize/components/network-policy]\n"
    )
    command = ["kubectl", "kustomize", str(tmp_path / "own")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    wanted = dataclasses.replace(
        deploy.EXAMPLE, mode="deployment", monitoring=True, network_policy=True
    )
    assert sorted(built, key=_key) == sorted(render(wanted), key=_key)


PLANE = ControlPlaneSpec()


def server_arguments(agents: AgentSpec, name: str) -> list[str]:
    """Of one of the forms in which the server is printed."""
    text = control_plane.files(agents, PLANE)[name]
    if name == control_plane.UNIT:
        command = text.partition("ExecStart=")[2].partition("\nRuntimeDirectory=")[0]
        program, *arguments = command.replace("\\\n", "").split()
        assert program == "/usr/local/bin/proxy-server"
        return arguments
    spec = yaml.safe_load(text)["spec"]
    spec = spec.get("template", {"spec": spec})["spec"]
    (found,) = [each for each in spec["containers"] if each["name"] == "konnectivity-server"]
    assert found["command"] == ["/proxy-server"]
    assert isinstance(found["args"], list)
    return found["args"]


@pytest.mark.parametrize(
    "name", [control_plane.STATIC_POD, control_plane.SIDECAR, control_plane.UNIT]
)
@pytest.mark.parametrize("shown", ["token", "certificate", "both"])
@pytest.mark.parametrize("leases", [False, True])
def test_the_server_accepts_its_command_line(
    name: str, shown: str, leases: bool, tmp_path: Path
) -> None:
    agents = dataclasses.replace(deploy.EXAMPLE, authentication=shown, count_leases=leases)
    argv = []
    for argument in server_arguments(agents, name):
        flag, _, value = argument.partition("=")
        if value.startswith("/") and flag != "--uds-name":
            mounted = tmp_path / Path(value).name
            mounted.touch()
            argument = f"{flag}={mounted}"
        argv.append(argument)
    line = parse(ServerOptions, argv)
    assert not line.warnings
    assert validate(line.options) == []
    assert line.options.agent_port == agents.server_port
    assert bool(line.options.agent_service_account) is agents.uses_token
    assert bool(line.options.cluster_ca_cert) is agents.uses_certificate
    assert line.options.enable_lease_controller is leases


def test_the_static_pod_and_the_sidecar_fit_kubernetes_schema() -> None:
    texts = control_plane.files(deploy.EXAMPLE, PLANE)
    pod = yaml.safe_load(texts[control_plane.STATIC_POD])
    assert schema.problems_anywhere(pod) == []
    patch = yaml.safe_load(texts[control_plane.SIDECAR])
    head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "kube-apiserver"}}
    patch["spec"] |= {"selector": {}}
    assert schema.problems_anywhere(head | patch) == []


def test_every_file_that_the_server_names_is_mounted() -> None:
    pod = yaml.safe_load(control_plane.files(deploy.EXAMPLE, PLANE)[control_plane.STATIC_POD])
    (server,) = pod["spec"]["containers"]
    mounts = {each["mountPath"] for each in server["volumeMounts"]}
    paths = [each.partition("=")[2] for each in server["args"]]
    named = {str(Path(each).parent) for each in paths if each.startswith("/")}
    assert named <= mounts
    assert "/etc/kubernetes" not in mounts, "the CA's key is there"


def test_kube_apiservers_start_does_not_wait_for_agents() -> None:
    texts = control_plane.files(deploy.EXAMPLE, PLANE)
    for name in (control_plane.STATIC_POD, control_plane.SIDECAR):
        assert "readinessProbe" not in texts[name]


@pytest.mark.parametrize("mode", ["grpc", "http-connect"])
def test_the_egress_selector_is_the_one_that_a_kube_apiserver_reads(mode: str) -> None:
    plane = ControlPlaneSpec(frontend=mode)
    text = control_plane.files(deploy.EXAMPLE, plane)[control_plane.EGRESS]
    wanted = egress_selector_configuration(mode, "/run/konnectivity/server.socket")
    assert yaml.safe_load(text) == yaml.safe_load(wanted)


def test_the_servers_kubeconfig_names_its_user_and_is_only_there_if_it_is_needed() -> None:
    text = control_plane.files(deploy.EXAMPLE, PLANE)[control_plane.KUBECONFIG]
    config = yaml.safe_load(text)
    assert config["users"][0]["name"] == "system:konnectivity-server"
    assert "PRIVATE" not in text
    without = dataclasses.replace(deploy.EXAMPLE, authentication="certificate")
    assert control_plane.KUBECONFIG not in control_plane.files(without, PLANE)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"frontend": "tcp"}, "frontend must be grpc or http-connect"),
        ({"server_count": 0}, "server-count must be >= 1"),
        ({"proxy_strategies": "best"}, '"best" is none of'),
        ({"api_server": "http://a"}, "must be a URL that begins with https://"),
        ({"socket_directory": "run"}, 'socket-directory "run" must be an absolute path'),
        ({"egress_configuration": "/etc/kubernetes/konnectivity-server/e"}, "of their own"),
    ],
)
def test_a_mistake_in_the_control_plane_is_one_line(change: dict[str, Any], expected: str) -> None:
    (found,) = control_plane.problems(ControlPlaneSpec(**change))
    assert expected in found
