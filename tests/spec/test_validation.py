"""All that is wrong with a command line is said at once, in upstream's words and order."""

from __future__ import annotations

from pathlib import Path

import pytest

from konnectivity.agent.options import AgentOptions
from konnectivity.agent.options import validate as validate_agent
from konnectivity.cli.flags import parse
from konnectivity.server.options import ServerOptions
from konnectivity.server.options import validate as validate_server

GONE = "stat /no/such: no such file or directory"

WRONG_SERVER = (
    ("--server-key=/no/such", f"error checking server key /no/such, got {GONE}"),
    ("", 'cannot have server cert empty when server key is set to "/no/such"'),
    ("--server-ca-cert=/no/such", f"error checking server CA cert /no/such, got {GONE}"),
    ("--cluster-cert=/no/such", f"error checking cluster cert /no/such, got {GONE}"),
    ("", 'cannot have cluster key empty when cluster cert is set to "/no/such"'),
    ("--cluster-ca-cert=/no/such", f"error checking cluster CA cert /no/such, got {GONE}"),
    ("--mode=udp", "mode must be set to either 'grpc' or 'http-connect' not \"udp\""),
    ("--uds-name=/s --server-port=50000", "server port should be set to 0 not 50000 for UDS"),
    ("", "server key should not be set for UDS"),
    ("", "server ca cert should not be set for UDS"),
    ("", "please do not try to use ephemeral port 50000 for the server port"),
    ("--agent-port=49152", "please do not try to use ephemeral port 49152 for the agent port"),
    ("--health-port=65535", "please do not try to use ephemeral port 65535 for the health port"),
    ("--admin-port=1023", "please do not try to use reserved port 1023 for the admin port"),
    (
        "--enable-contention-profiling",
        "if --enable-contention-profiling is set, --enable-profiling must also be set",
    ),
    (
        "--authentication-audience=a",
        "--agent-namespace cannot be empty when agent authentication is enabled",
    ),
    ("", "--agent-service-account cannot be empty when agent authentication is enabled"),
    ("--kubeconfig=/no/such", f'checking KubeconfigPath "/no/such", got {GONE}'),
    ("--proxy-strategies=nearest", "invalid proxy strategies: unknown proxy strategy: nearest"),
    ("--xfr-channel-size=-1", "channel size -1 must be greater than 0"),
    (
        "--tls-min-version=1.2",
        'unsupported TLS version "1.2", supported values are: '
        "VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13",
    ),
    (
        "--cipher-suites=NULL",
        "cipher suite NULL not supported, doesn't exist or considered as insecure",
    ),
    ("--enable-lease-controller --lease-label=k8s-app", "invalid label format: k8s-app"),
    ("--graceful-shutdown-timeout=-1s", "graceful-shutdown-timeout must be >= 0, got -1s"),
    ("--backend-dial-timeout=-1ns", "backend-dial-timeout must be >= 0, got -1ns"),
)
"""Flags, and what they bring in this order; some bring two lines."""

WRONG_AGENT = (
    ("--agent-key=/no/such", f"error checking agent key /no/such, got {GONE}"),
    ("", 'cannot have agent cert empty when agent key is set to "/no/such"'),
    ("--ca-cert=/no/such", f"error checking agent CA cert /no/such, got {GONE}"),
    ("--proxy-server-port=0", "proxy server port 0 must be greater than 0"),
    ("--health-server-port=-1", "health server port -1 must be greater than 0"),
    ("--admin-server-port=0", "admin server port 0 must be greater than 0"),
    ("--xfr-channel-size=0", "channel size 0 must be greater than 0"),
    (
        "--enable-contention-profiling",
        "if --enable-contention-profiling is set, --enable-profiling must also be set",
    ),
    ("--sync-interval=1h", "sync interval 1h0m0s must be less than sync interval cap 10s"),
    (
        "--service-account-token-path=/no/such",
        f"error checking service account token path /no/such, got {GONE}",
    ),
    ("--agent-identifiers=zone=a", "agent address is invalid: unknown address type: zone"),
    ("--kubeconfig=/no/such", f'error checking KubeconfigPath "/no/such", got {GONE}'),
    (
        "--server-count-source=min",
        "--server-count-source must be one of '', 'default', 'max', got min",
    ),
)


def argv(wrong: tuple[tuple[str, str], ...]) -> list[str]:
    return [word for flags, _ in wrong for word in flags.split()]


def in_order(found: list[str], expected: list[str]) -> list[str]:
    """Those of `found` that were expected; lines of our own may stand between them."""
    return [line for line in found if line in expected]


def test_a_server_with_everything_wrong_says_all_of_it_in_upstreams_order() -> None:
    """Scenario 55."""
    expected = [text for _, text in WRONG_SERVER]
    assert (
        in_order(validate_server(parse(ServerOptions, argv(WRONG_SERVER)).options), expected)
        == expected
    )


def test_an_agent_with_everything_wrong_says_all_of_it_in_upstreams_order() -> None:
    """Scenario 56."""
    expected = [text for _, text in WRONG_AGENT]
    assert validate_agent(parse(AgentOptions, argv(WRONG_AGENT)).options) == expected


@pytest.fixture
def pem(tmp_path: Path) -> str:
    file = tmp_path / "file.pem"
    file.touch()
    return str(file)


@pytest.fixture
def tcp(pem: str) -> list[str]:
    return [
        f"--{side}-{what}={pem}"
        for side in ("server", "cluster")
        for what in ("cert", "key", "ca-cert")
    ]


@pytest.mark.parametrize("port", ["server", "agent", "admin", "health"])
@pytest.mark.parametrize(
    ("number", "kind"), [(1023, "reserved"), (1024, ""), (49151, ""), (49152, "ephemeral")]
)
def test_a_servers_ports_are_bound_by_upstreams_range(
    port: str, number: int, kind: str, tcp: list[str]
) -> None:
    """Scenario 55."""
    text = f"please do not try to use {kind} port {number} for the {port} port"
    found = validate_server(parse(ServerOptions, [*tcp, f"--{port}-port={number}"]).options)
    assert found == ([text] if kind else [])


@pytest.mark.parametrize("port", ["proxy-server", "health-server", "admin-server"])
@pytest.mark.parametrize("number", [-1, 0, 1, 1023, 1024, 49151, 49152])
def test_an_agents_ports_are_all_that_are_positive(port: str, number: int, pem: str) -> None:
    """Scenario 56."""
    found = validate_agent(
        parse(AgentOptions, [f"--ca-cert={pem}", f"--{port}-port={number}"]).options
    )
    which = port.replace("-", " ")
    assert found == ([] if number > 0 else [f"{which} port {number} must be greater than 0"])


@pytest.mark.parametrize(
    "good",
    [
        "--backend-dial-timeout=0",
        "--backend-dial-timeout=5s",
        "--graceful-shutdown-timeout=0",
        "--graceful-shutdown-timeout=90s",
        "--xfr-channel-size=1",
        "--tls-min-version=VersionTLS13",
        "--proxy-strategies=destHost,defaultRoute,default,destHost",
        "--cipher-suites=TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "--enable-lease-controller --lease-label= a = b ,c=d",
    ],
)
def test_what_upstream_takes_is_taken(good: str, tcp: list[str]) -> None:
    """Scenario 55."""
    words = [f"--{word}" for word in good.removeprefix("--").split(" --")]
    assert validate_server(parse(ServerOptions, [*tcp, *words]).options) == []


@pytest.mark.parametrize(
    ("label", "good"),
    [
        ("k8s-app=konnectivity-server", True),
        ("a=b,c=d", True),
        ("", True),
        ("a in (b,c),!d", True),
        ("a=b=c", False),
        ("in (", False),
    ],
)
@pytest.mark.parametrize("flag", ["lease-label", "lease-label-selector"])
def test_both_flags_of_an_agents_label_selector_take_the_same(
    flag: str, label: str, good: bool, pem: str
) -> None:
    """Scenario 56."""
    line = parse(AgentOptions, [f"--ca-cert={pem}", f"--{flag}={label}"])
    assert line.options.lease_label_selector == label
    assert (validate_agent(line.options) == []) is good
