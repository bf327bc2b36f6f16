"""The command `konnectivity bundle`: what is in the archive and what not, and no secret at all."""

from __future__ import annotations

import base64
import io
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.diagnose.conftest import LABELS, PODS, Command, put_pod, put_workload
from tests.e2e.conftest import ConnectAgent, StartAgent
from tests.net.authority import Authority, Identity, private_pem
from tests.peers.kube_api import Fault, KubeApi
from tests.peers.ports import free_port
from tests.peers.program import flags, running

from konnectivity.diagnose.admin_client import AdminClient, Silence
from konnectivity.diagnose.bundle.archive import Archive, File, Miss, Part, file_name
from konnectivity.diagnose.bundle.parts import NAMES
from konnectivity.diagnose.bundle.redaction import MASK, Redactor
from konnectivity.diagnose.sources import ServerSource

SECRETS = "/api/v1/namespaces/kube-system/secrets"
EVENTS = "/api/v1/namespaces/kube-system/events"
QUICK = "--interval=0s"
ADDRESS = "10.77.3.9"

PLANTED = {
    "log": "planted-in-a-log-4711",
    "header": "planted-bearer-0123456789abcdef",
    "jwt": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.cGxhbnRlZC1zaWduYXR1cmU",
    "variable": "planted-in-an-environment",
    "secret": base64.b64encode(b"planted in a secret").decode(),
    "proxy": "planted-in-a-proxy-url",
    "pod-proxy": "planted-in-a-pods-proxy",
    "annotation": "planted-in-an-annotation",
    "bootstrap": "abcdef.0123456789abcdef",
    "admin": "planted-admin-token-55",
    "argument": "planted-in-an-argument",
}


@pytest.fixture(scope="module")
def key() -> str:
    """A private key in PEM."""
    return private_pem(ec.generate_private_key(ec.SECP256R1())).decode()


def unpack(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def index_of(files: dict[str, bytes]) -> dict[str, Any]:
    index: dict[str, Any] = json.loads(files["index.json"])
    return index


def results(files: dict[str, bytes]) -> dict[str, str]:
    return {each["name"]: each["result"] for each in index_of(files)["parts"]}


def missing(files: dict[str, bytes], part: str) -> str:
    (found,) = (each for each in index_of(files)["parts"] if each["name"] == part)
    return "; ".join(f"{each['what']}: {each['reason']}" for each in found["missing"])


def certificate_of(identity: Identity) -> str:
    return Path(identity.cert).read_text()


def plant(api: KubeApi, key: str) -> None:
    """Secrets wherever objects may have them."""
    put_workload(api, desired=1, ready=1)
    put_pod(api, "agent-a", podIP=ADDRESS)
    pod = api.get(f"{PODS}/agent-a")
    container = pod["spec"]["containers"][0]
    container["env"] = [
        {"name": "ODD", "value": PLANTED["variable"]},
        {"name": "HTTPS_PROXY", "value": f"http://me:{PLANTED['pod-proxy']}@proxy.example:3128"},
    ]
    container["args"] = [f"--password={PLANTED['argument']}", "--agent-id=a"]
    pod["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": json.dumps(pod["spec"]),
        "example.com/api-key": PLANTED["annotation"],
        "example.com/notes": key,
    }
    api.put(f"{PODS}/agent-a", pod)
    api.put(
        f"{SECRETS}/agent",
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "agent", "labels": LABELS},
            "data": {"it": PLANTED["secret"]},
        },
    )
    said = (
        f"Authorization: Bearer {PLANTED['header']}",
        f"join with {PLANTED['bootstrap']}, then {PLANTED['jwt']}",
        json.dumps({"kubeconfig": base64.b64encode(key.encode()).decode()}),
    )
    for number, message in enumerate(said):
        api.put(
            f"{EVENTS}/e{number}",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"e{number}"},
                "involvedObject": {"kind": "Pod", "name": "agent-a"},
                "reason": "Odd",
                "message": message,
            },
        )


async def test_no_secret_is_in_the_archive(
    api: KubeApi,
    kubeconfig: str,
    konnectivity: Command,
    server_options: dict[str, Any],
    connect_agent: ConnectAgent,
    folder: Path,
    key: str,
) -> None:
    plant(api, key)
    token = folder / "admin.token"
    token.write_text(PLANTED["admin"])
    options = server_options | {"admin_token_file": str(token), "enable_profiling": True}
    async with running("server", *flags(**options)) as program:
        await program.line("Server is up")
        await connect_agent(f"odd token={PLANTED['log']} http://u:{PLANTED['log']}@h/")
        path = folder / "bundle.zip"
        status, _, err = await konnectivity(
            "bundle",
            f"--file={path}",
            f"--server=http://127.0.0.1:{server_options['admin_port']}",
            f"--server-token-file={token}",
            f"--kubeconfig={kubeconfig}",
            QUICK,
            HTTPS_PROXY=f"http://me:{PLANTED['proxy']}@proxy.example:3128",
        )
    assert status == 0, err
    files = unpack(path)
    assert set(results(files).values()) == {"ok"}, err
    lines = [line for line in key.splitlines() if not line.startswith("---")]
    encoded = base64.b64encode(key.encode())
    for name, content in files.items():
        for kind, secret in PLANTED.items():
            assert secret.encode() not in content, f"{kind} is in {name}"
        assert not any(line.encode() in content for line in lines), f"the key is in {name}"
        assert encoded[100:140] not in content, f"the key is in {name}"
    # They were there to be found, and what stands around them still is.
    found = {each["rule"]: each["found"] for each in index_of(files)["redaction"]}
    for rule in ("key", "token", "header", "userinfo", "named", "environment", "dropped"):
        assert found[rule], rule
    assert b"http://<masked>@proxy.example:3128" in files["cluster/pods.json"]
    assert b"http://<masked>@proxy.example:3128" in files["environment/proxies.json"]
    logs = next(content for name, content in files.items() if name.endswith("logs.json"))
    assert b"Agent connected" in logs
    assert b"odd token=<masked> http://<masked>@h/" in logs
    assert not api.asked("GET", "secrets")


async def test_the_parts_are_what_they_are_called(
    api: KubeApi,
    kubeconfig: str,
    konnectivity: Command,
    server_options: dict[str, Any],
    identity: Identity,
    connect_agent: ConnectAgent,
    folder: Path,
) -> None:
    put_workload(api, desired=1, ready=1)
    async with running("server", *flags(**server_options)) as program:
        await program.line("Server is up")
        await connect_agent("agent-a")
        path = folder / "bundle.zip"
        url = f"--server=http://127.0.0.1:{server_options['admin_port']}"
        status, out, err = await konnectivity(
            "bundle", f"--file={path}", url, f"--kubeconfig={kubeconfig}", QUICK
        )
    assert (status, str(path) in out) == (0, True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files = unpack(path)
    assert list(results(files)) == list(NAMES)
    assert results(files) | {"stacks": "ok"} == dict.fromkeys(NAMES, "ok")
    assert "--enable-profiling" in missing(files, "stacks")
    assert "--enable-profiling" in err
    process = f"processes/127.0.0.1_{server_options['admin_port']}"
    assert json.loads(files["status.json"])["schema"] == "konnectivity.status/v1"
    assert json.loads(files["doctor.json"])["schema"] == "konnectivity.doctor/v1"
    assert "tunnels" not in json.loads(files[f"{process}/status.json"])
    flag = json.loads(files[f"{process}/flags.json"])["flags"]
    assert flag["uds-name"] == f'"{server_options["uds_name"]}"'
    assert b"konnectivity_network_proxy_server" in files[f"{process}/metrics-2.txt"]
    assert json.loads(files[f"{process}/dials.json"])["recent"] == []
    assert json.loads(files[f"{process}/tunnels.json"]) == []
    kinds = [each["kind"] for each in json.loads(files[f"{process}/events.json"])]
    assert "agent_connected" in kinds
    assert json.loads(files["cluster/daemonsets.json"])[0]["metadata"]["name"]
    chain = next(name for name in files if name.endswith("cluster-cert.pem"))
    assert files[chain].decode().strip() in certificate_of(identity)
    assert b"PRIVATE" not in b"".join(files.values())


async def test_an_agent_is_asked_like_a_server(
    konnectivity: Command, start_agent: StartAgent, folder: Path
) -> None:
    agent = await start_agent()
    path = folder / "bundle.zip"
    url = f"--server=http://127.0.0.1:{agent.options.admin_server_port}"
    status, _, err = await konnectivity("bundle", f"--file={path}", url, "--no-cluster", QUICK)
    assert (status, "Traceback" in err) == (0, False)
    files = unpack(path)
    process = f"processes/127.0.0.1_{agent.options.admin_server_port}"
    assert json.loads(files[f"{process}/status.json"])["kind"] == "AgentStatus"
    assert json.loads(files[f"{process}/flags.json"])["flags"]["agent-id"] == '"agent-1"'
    assert "health port" in missing(files, "metrics")


async def test_one_source_is_enough_and_the_index_says_what_is_not_there(
    api: KubeApi, kubeconfig: str, konnectivity: Command, folder: Path
) -> None:
    put_workload(api, desired=1, ready=1)
    api.faults.append(Fault(path="networkpolicies", status=403))
    path = folder / "bundle.zip"
    nobody = f"--server=http://127.0.0.1:{free_port()}"
    status, _, _ = await konnectivity(
        "bundle", f"--file={path}", nobody, f"--kubeconfig={kubeconfig}", QUICK
    )
    assert status == 0
    files = unpack(path)
    assert results(files)["logs"] == "failed"
    assert "connection refused" in missing(files, "logs")
    assert results(files)["policies"] == "partial"
    assert "allow list on networkpolicies.networking.k8s.io" in missing(files, "policies")
    assert results(files)["objects"] == "ok"


async def test_without_any_source_there_is_still_an_archive(
    konnectivity: Command, folder: Path
) -> None:
    path = folder / "bundle.zip"
    nobody = f"--server=http://127.0.0.1:{free_port()}"
    status, _, err = await konnectivity("bundle", f"--file={path}", nobody, "--no-cluster", QUICK)
    assert (status, "Traceback" in err) == (1, False)
    files = unpack(path)
    assert results(files)["versions"] == "ok"
    assert "no cluster is named" in missing(files, "objects")


async def test_parts_are_left_out_on_request_and_nothing_is_written_over(
    konnectivity: Command, folder: Path
) -> None:
    path = folder / "bundle.zip"
    argv = ["bundle", f"--file={path}", "--no-cluster", "--without=environment,metrics"]
    argv.append(f"--server=http://127.0.0.1:{free_port()}")
    await konnectivity(*argv)
    files = unpack(path)
    assert results(files)["environment"] == "left out"
    assert not any(name.startswith("environment") for name in files)
    status, out, err = await konnectivity(*argv)
    assert (status, out) == (1, "")
    assert err == f"Error: {path} exists; name another with --file\n"


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--without=tea", "none of status, doctor"),
        ("--max-size=5", "max-size must be"),
        ("--interval=-1s", "interval must be"),
        ("--frobnicate", "unknown flag"),
    ],
)
async def test_a_mistake_is_one_line(konnectivity: Command, flag: str, words: str) -> None:
    status, out, err = await konnectivity("bundle", flag)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err


# The routes that only a bundle asks for


async def test_logs_and_flags_are_protected_and_bounded(
    server_options: dict[str, Any], folder: Path
) -> None:
    token, secret = folder / "admin.token", "an-admin-token"
    token.write_text(secret)
    server_options = server_options | {"admin_token_file": str(token)}
    async with running("server", *flags(**server_options)) as program:
        await program.line("Server is up")
        url = f"http://127.0.0.1:{server_options['admin_port']}"
        stranger = AdminClient(ServerSource(url), None, timeout=5.0)
        for path in ("/api/v1/logs", "/api/v1/flags"):
            with pytest.raises(Silence) as caught:
                await stranger.page(path)
            assert caught.value.status == 401
        client = AdminClient(ServerSource(url, token=secret), None, timeout=5.0)
        found = json.loads(await client.page("/api/v1/logs"))
        assert (found["apiVersion"], found["kind"]) == ("v1", "Logs")
        assert "Server is up" in [each["msg"] for each in found["entries"]]
        (last,) = json.loads(await client.page("/api/v1/logs?entries=1"))["entries"]
        assert last == found["entries"][-1]
        with pytest.raises(Silence) as caught:
            await client.page("/api/v1/logs?entries=all")
        assert caught.value.status == 400
        shown = await client.page("/api/v1/flags")
        assert json.loads(shown)["flags"]["admin-token-file"] == f'"{token}"'
        assert secret.encode() not in shown


# Size


def test_what_is_too_much_is_left_out_and_said() -> None:
    archive = Archive(Redactor(), max_size=200_000)
    part = Part("logs", "")
    noise = "".join(f"{number * 7919:x}" for number in range(60_000))
    archive.add(part, [File("small", "x"), File("large", noise), File("last", "y")])
    content = archive.close(created_at=0.0)
    with zipfile.ZipFile(io.BytesIO(content)) as found:
        assert found.namelist() == ["small", "last", "index.json"]
    assert len(content) < 200_000
    assert part.result == "partial"
    assert "--max-size" in part.missing[0].reason


def test_names_of_others_make_no_paths() -> None:
    assert file_name("../../etc/passwd") == "etc_passwd"
    assert file_name("\x1b[2J") == "2J"
    assert file_name("..") == "unnamed"


# Redaction


@pytest.mark.parametrize(
    "text",
    [
        "the token is rejected: it has expired",
        "no token: give its token by --server-token-file=/etc/token",
        "--admin-token-file=/run/secrets/admin.token --service-account-token-path=/var/run/t",
        'agent_authentications_total{outcome="no_token"} 3',
        "HTTP 401: a bearer token is wanted",
        "https://10.0.0.1:8095/api/v1/status",
        "Secret kube-system/agent was changed",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.DEF-123",
        "proxy-authorization: Basic dXNlcjpwYXNz1",
        "got bearer abcdef012345",
        "http://user:p@ss-1@proxy:3128/",
        'password="hunter2abc"',
        "password: hunter2abc",
        '{\\"token\\":\\"abc1234\\"}',
        "{'api_key': 'abc1234'}",
        "X-Auth-Token: abc",
    ],
)
def test_secrets_are_masked_by_their_looks(text: str) -> None:
    masked = Redactor().text(text)
    assert MASK in masked
    for secret in ("abc", "dXNl", "p@ss", "hunter"):
        assert secret not in masked


def test_a_key_that_was_cut_off_is_masked_to_its_last_letter(key: str) -> None:
    cut = key[: len(key) // 2]
    assert Redactor().text(f"read {cut}") == f"read {MASK}"
    escaped = json.dumps({"text": cut})
    assert cut[60:80] not in Redactor().text(escaped)


def test_certificates_stay(identity: Identity, authority: Authority) -> None:
    pem = Path(authority.bundle).read_text()
    encoded = base64.b64encode(pem.encode()).decode()
    assert Redactor().text(pem) == pem
    assert Redactor().plain({"caBundle": encoded}) == {"caBundle": encoded}


def test_the_data_of_a_secret_is_masked_whole() -> None:
    item = {"kind": "Secret", "data": {"a": "eA=="}, "stringData": {"b": "x"}, "type": "Opaque"}
    assert Redactor().plain([item]) == [
        {"kind": "Secret", "data": {"a": MASK}, "stringData": {"b": MASK}, "type": "Opaque"}
    ]


def test_the_same_address_has_the_same_mask() -> None:
    redactor = Redactor(addresses=True)
    first = redactor.text(f"dial {ADDRESS}:10250 from [fd00::7]:443, not 10.0.0.0/8")
    assert first == "dial address-2:10250 from [address-1]:443, not address-3/8"
    assert redactor.text(f"ip-{ADDRESS.replace('.', '-')}.example") == "ip-address-2.example"
    assert redactor.text(f"::ffff:{ADDRESS}, fd00:0::7") == "address-2, address-1"
    kept = "127.0.0.1:8095 [::1]:1 0.0.0.0 at 05:36:16.218Z v1.33.2 2026-11-22T05:36:16Z"
    assert redactor.text(kept) == kept


async def test_addresses_are_masked_in_all_files(
    api: KubeApi, kubeconfig: str, konnectivity: Command, folder: Path
) -> None:
    put_workload(api, desired=1, ready=1)
    put_pod(api, "agent-a", podIP=ADDRESS)
    path = folder / "bundle.zip"
    nobody = f"--server=http://127.0.0.1:{free_port()}"
    await konnectivity(
        *("bundle", f"--file={path}", nobody, f"--kubeconfig={kubeconfig}", QUICK),
        "--mask-addresses",
        HTTPS_PROXY=f"http://{ADDRESS}:3128",
    )
    files = unpack(path)
    assert ADDRESS.encode() not in b"".join(files.values())
    (pod,) = json.loads(files["cluster/pods.json"])
    mask = pod["status"]["podIP"]
    assert mask.startswith("address-")
    assert json.loads(files["environment/proxies.json"])["HTTPS_PROXY"] == f"http://{mask}:3128"


def test_a_part_with_nothing_has_failed() -> None:
    part = Part("logs", "")
    Archive(Redactor(), max_size=1 << 20).add(part, [Miss("a", "b")])
    assert part.result == "failed"
