"""The agent's flags are upstream's, and what cannot work is refused before anything starts."""

from pathlib import Path

import pytest

from konnectivity.agent.options import AgentOptions, validate
from konnectivity.cli.flags import parse

# As a test harness starts a foreign agent: every flag, in Go's print of its value.
EVERY_FLAG = """
--agent-cert={pem} --agent-key={pem} --ca-cert={pem} --proxy-server-host=127.0.0.1
--proxy-server-port=8091 --alpn-proto=[] --health-server-host= --health-server-port=8093
--admin-bind-address=127.0.0.1 --admin-server-port=8094 --enable-profiling=false
--enable-contention-profiling=false --agent-id=a --agent-identifiers= --sync-interval=100ms
--sync-interval-cap=1s --sync-forever=false --probe-interval=100ms --keepalive-time=1h0m0s
--service-account-token-path= --warn-on-channel-limit=false --xfr-channel-size=150
--count-server-leases=false --lease-namespace=kube-system
--lease-label=k8s-app=konnectivity-server --lease-label-selector=k8s-app=konnectivity-server
--server-count-source=default --kubeconfig= --v=4
--kube-api-content-type=application/vnd.kubernetes.protobuf
"""


@pytest.fixture
def pem(tmp_path: Path) -> str:
    file = tmp_path / "file.pem"
    file.touch()
    return str(file)


def problems(*argv: str) -> list[str]:
    return validate(parse(AgentOptions, argv).options)


def test_every_flag_of_upstream_can_be_given_in_its_printed_form(pem: str) -> None:
    line = parse(AgentOptions, EVERY_FLAG.format(pem=pem).split())
    assert len(line.warnings) == 1  # the deprecated --lease-label
    assert validate(line.options) == []
    assert line.options == AgentOptions(
        agent_cert=pem,
        agent_key=pem,
        ca_cert=pem,
        agent_id="a",
        sync_interval=0.1,
        sync_interval_cap=1.0,
        probe_interval=0.1,
    )


def test_a_ca_is_all_that_must_be_given(pem: str) -> None:
    assert problems(f"--ca-cert={pem}") == []
    assert problems() == ["agent CA cert must be set (ca-cert), servers are verified against it"]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--proxy-server-port=0", "proxy server port 0 must be greater than 0"),
        ("--health-server-port=-1", "health server port -1 must be greater than 0"),
        ("--admin-server-port=0", "admin server port 0 must be greater than 0"),
        ("--proxy-server-port=65536", "proxy server port 65536 must not be greater than 65535"),
        ("--xfr-channel-size=0", "channel size 0 must be greater than 0"),
        (
            "--enable-contention-profiling",
            "if --enable-contention-profiling is set, --enable-profiling must also be set",
        ),
        ("--sync-interval=11s", "sync interval 11s must be less than sync interval cap 10s"),
        ("--sync-interval=0", "sync interval 0s must be greater than 0s"),
        (
            "--heartbeat-interval=999ms",
            "heartbeat-interval must be 0 or at least 1s, got 999ms",
        ),
        (
            "--heartbeat-namespace=Kube",
            'heartbeat-namespace "Kube" is no name of a namespace',
        ),
        (
            "--certificate-reload-interval=999ms",
            "certificate-reload-interval must be at least 1s, got 999ms",
        ),
        ("--alpn-proto=lb,ü", 'alpn-proto "ü" must be 1 to 255 letters of ASCII'),
        ('--alpn-proto="",h2', 'alpn-proto "" must be 1 to 255 letters of ASCII'),
        ("--probe-interval=-1ms", "probe interval -1ms must be greater than 0s"),
        (
            "--service-account-token-path=/no/such",
            "error checking service account token path /no/such, "
            "got stat /no/such: no such file or directory",
        ),
        (
            "--agent-cert=/no/such --agent-key={pem}",
            "error checking agent cert /no/such, got stat /no/such: no such file or directory",
        ),
        (
            "--agent-cert={pem} --agent-key=/no/such",
            "error checking agent key /no/such, got stat /no/such: no such file or directory",
        ),
        ("--agent-cert={pem}", 'cannot have agent key empty when agent cert is set to "{pem}"'),
        ("--agent-key={pem}", 'cannot have agent cert empty when agent key is set to "{pem}"'),
        (
            "--ca-cert=/no/such",
            "error checking agent CA cert /no/such, got stat /no/such: no such file or directory",
        ),
        (
            "--kubeconfig=/no/such",
            'error checking KubeconfigPath "/no/such", '
            "got stat /no/such: no such file or directory",
        ),
        (
            "--server-count-source=min",
            "--server-count-source must be one of '', 'default', 'max', got min",
        ),
        ("--agent-identifiers=zone=a", "agent address is invalid: unknown address type: zone"),
        ("--agent-identifiers=Host=a", "agent address is invalid: unknown address type: Host"),
        (
            "--agent-identifiers=host=a;host=b",
            "agent address is invalid: invalid semicolon separator in query",
        ),
        (
            "--agent-identifiers=host=%zz",
            'agent address is invalid: invalid URL escape "%zz"',
        ),
        ("--agent-identifiers=host=%2", 'agent address is invalid: invalid URL escape "%2"'),
    ],
)
def test_a_wrong_value_is_refused_in_upstreams_words(argv: str, text: str, pem: str) -> None:
    words = argv.format(pem=pem).split()
    assert problems(f"--ca-cert={pem}", *words) == [text.format(pem=pem)]


@pytest.mark.parametrize(
    "identifiers",
    [
        "",
        "host=localhost&host=node1.mydomain.com&cidr=127.0.0.1/16&ipv4=1.2.3.4&ipv4=5.6.7.8"
        "&ipv6=:::::&default-route=true",
        "ipv4=${HOST_IP}",
        "&host=a&&",
        "h%6Fst=a+b%20c",
        "host",
    ],
)
def test_identifiers_that_upstream_takes_are_taken(identifiers: str, pem: str) -> None:
    assert problems(f"--ca-cert={pem}", f"--agent-identifiers={identifiers}") == []


def test_intervals_may_be_equal_to_their_cap(pem: str) -> None:
    assert problems(f"--ca-cert={pem}", "--sync-interval=10s") == []


def test_every_problem_is_reported() -> None:
    assert len(problems("--admin-server-port=0", "--sync-interval=1h")) == 3


@pytest.mark.parametrize("selector", ["", "a=b", "a in (b,c),!d,e!=f"])
def test_leases_are_selected_by_any_label_selector(selector: str, pem: str) -> None:
    options = parse(AgentOptions, [f"--ca-cert={pem}", f"--lease-label-selector={selector}"])
    assert validate(options.options) == []


def test_a_bad_selector_is_refused_as_an_argument_of_its_flag(pem: str) -> None:
    argv = [f"--ca-cert={pem}", '--lease-label-selector=a="b"']
    (text,) = validate(parse(AgentOptions, argv).options)
    assert text.startswith(
        'invalid argument "a=\\"b\\"" for "--lease-label-selector" flag: unable to parse'
    )
