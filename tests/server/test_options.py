"""The server's flags are upstream's, and what cannot work is refused before anything starts."""

from pathlib import Path

import pytest

from konnectivity.cli.flags import parse
from konnectivity.server.options import ServerOptions, validate


@pytest.fixture
def pem(tmp_path: Path) -> str:
    file = tmp_path / "file.pem"
    file.touch()
    return str(file)


@pytest.fixture
def uds(pem: str) -> list[str]:
    """Flags that pass, with the frontend on a Unix socket."""
    return ["--uds-name=/run/s", "--server-port=0", f"--cluster-cert={pem}", f"--cluster-key={pem}"]


@pytest.fixture
def tcp(pem: str) -> list[str]:
    """Flags that pass, with the frontend on TCP."""
    names = ("server-cert", "server-key", "server-ca-cert")
    names += ("cluster-cert", "cluster-key", "cluster-ca-cert")
    return [f"--{name}={pem}" for name in names]


def problems(*argv: str) -> list[str]:
    return validate(parse(ServerOptions, argv).options)


def test_a_unix_socket_or_tcp_with_certificates_passes(uds: list[str], tcp: list[str]) -> None:
    assert problems(*uds) == []
    assert problems(*tcp) == []


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--mode=http", "mode must be set to either 'grpc' or 'http-connect' not \"http\""),
        ("--mode=", "mode must be set to either 'grpc' or 'http-connect' not \"\""),
        ("--mode=grpc,", "mode must be set to either 'grpc' or 'http-connect' not \"grpc,\""),
        ("--server-port=8090", "server port should be set to 0 not 8090 for UDS"),
        ("--agent-port=49152", "please do not try to use ephemeral port 49152 for the agent port"),
        ("--admin-port=49152", "please do not try to use ephemeral port 49152 for the admin port"),
        (
            "--health-port=65536",
            "please do not try to use ephemeral port 65536 for the health port",
        ),
        ("--agent-port=1023", "please do not try to use reserved port 1023 for the agent port"),
        ("--admin-port=0", "please do not try to use reserved port 0 for the admin port"),
        ("--health-port=-1", "please do not try to use reserved port -1 for the health port"),
        (
            "--enable-contention-profiling",
            "if --enable-contention-profiling is set, --enable-profiling must also be set",
        ),
        (
            "--kubeconfig=/no/such",
            'checking KubeconfigPath "/no/such", got stat /no/such: no such file or directory',
        ),
        ("--proxy-strategies=", "ProxyStrategies cannot be empty"),
        (
            "--proxy-strategies=,,",
            "invalid proxy strategies: proxy strategies cannot be empty",
        ),
        ("--xfr-channel-size=0", "channel size 0 must be greater than 0"),
        (
            "--tls-min-version=TLS12",
            'unsupported TLS version "TLS12", supported values are: '
            "VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13",
        ),
        (
            "--cipher-suites=TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA",
            "cipher suite TLS_RSA_WITH_AES_128_CBC_SHA not supported, "
            "doesn't exist or considered as insecure",
        ),
        ("--enable-lease-controller --lease-label=", "empty string provided"),
        ("--enable-lease-controller --lease-label=a=b,c", "invalid label format: c"),
        ("--enable-lease-controller --lease-label=a=b=c", "invalid label format: a=b=c"),
        ("--graceful-shutdown-timeout=-1s", "graceful-shutdown-timeout must be >= 0, got -1s"),
        ("--backend-dial-timeout=-90s", "backend-dial-timeout must be >= 0, got -1m30s"),
    ],
)
def test_a_wrong_value_is_refused_in_upstreams_words(argv: str, text: str, uds: list[str]) -> None:
    words = [f"--{word}" for word in argv.removeprefix("--").split(" --")]
    assert problems(*uds, *words) == [text]


def test_certificates_do_not_go_with_a_unix_socket(uds: list[str], tcp: list[str]) -> None:
    assert problems(*tcp, *uds) == [
        "server key should not be set for UDS",
        "server cert should not be set for UDS",
        "server ca cert should not be set for UDS",
    ]


def test_tcp_needs_certificates() -> None:
    assert problems() == [
        "cluster cert and cluster key must be set, agents connect over TLS only",
        "server ca cert must be set when in TCP mode (uds-name is empty)",
        "server cert and server key must be set when in TCP mode (uds-name is empty)",
    ]


@pytest.mark.parametrize("side", ["server", "cluster"])
def test_a_key_needs_its_certificate_and_the_reverse(
    side: str, pem: str, uds: list[str], tcp: list[str]
) -> None:
    flags = tcp if side == "server" else uds
    assert problems(*flags, f"--{side}-cert=") == [
        f'cannot have {side} cert empty when {side} key is set to "{pem}"'
    ]
    assert problems(*flags, f"--{side}-key=") == [
        f'cannot have {side} key empty when {side} cert is set to "{pem}"'
    ]


@pytest.mark.parametrize("side", ["server", "cluster"])
@pytest.mark.parametrize(
    ("flag", "which"), [("key", "key"), ("cert", "cert"), ("ca-cert", "CA cert")]
)
def test_a_file_that_is_not_there_is_named(
    side: str, flag: str, which: str, tcp: list[str]
) -> None:
    assert problems(*tcp, f"--{side}-{flag}=/no/such") == [
        f"error checking {side} {which} /no/such, got stat /no/such: no such file or directory"
    ]


def test_the_frontends_port_is_bound_by_upstreams_range(tcp: list[str]) -> None:
    for good in (1024, 49151):
        assert problems(*tcp, f"--server-port={good}") == []
    assert problems(*tcp, "--server-port=443") == [
        "please do not try to use reserved port 443 for the server port"
    ]
    assert problems(*tcp, "--server-port=50000") == [
        "please do not try to use ephemeral port 50000 for the server port"
    ]


def test_token_authentication_is_complete_or_refused(uds: list[str], pem: str) -> None:
    flags = ("agent-namespace", "agent-service-account", "authentication-audience")
    for name in flags:
        assert problems(*uds, f"--{name}=x") == [
            f"--{other} cannot be empty when agent authentication is enabled"
            for other in flags
            if other != name
        ]


def test_w44_tokens_and_client_certificates_may_be_demanded_together(
    uds: list[str], pem: str
) -> None:
    tokens = ["--agent-namespace=a", "--agent-service-account=b", "--authentication-audience=c"]
    assert not problems(*uds, f"--cluster-ca-cert={pem}", *tokens, "--bind-identifiers-to-node")


def test_what_rests_on_authentication_is_refused_without(uds: list[str]) -> None:
    (text,) = problems(*uds, "--bind-identifiers-to-node")
    assert "needs agent authentication: --agent-namespace" in text
    (text,) = problems(*uds, "--agent-certificate-identities=CN=a")
    assert text == "--agent-certificate-identities needs --cluster-ca-cert"
    (text,) = problems(*uds, "--frontend-certificate-identities=CN=a")
    assert text == "frontend certificate identities should not be set for UDS"


def test_w47_patterns_for_identities_are_checked_one_by_one(uds: list[str], pem: str) -> None:
    patterns = "--agent-certificate-identities=CN=ok,DNS=*.x,URI=spiffe://t/*,O=g,cn=low,plain,CN="
    texts = problems(*uds, f"--cluster-ca-cert={pem}", patterns)
    assert [text.split('"')[1] for text in texts] == ["cn=low", "plain", "CN="]
    assert all("must be CN=, O=, DNS= or URI=" in text for text in texts)


def test_times_of_authentication_make_sense(uds: list[str]) -> None:
    assert problems(
        *uds,
        "--authentication-timeout=0",
        "--authentication-cache-ttl=-1s",
        "--authentication-recheck-interval=-1s",
        "--max-agent-connection-age=-1s",
    ) == [
        "authentication-cache-ttl must be >= 0, got -1s",
        "authentication-recheck-interval must be >= 0, got -1s",
        "max-agent-connection-age must be >= 0, got -1s",
        "authentication-timeout must be > 0, got 0s",
    ]


def test_w61_any_list_of_strategies_is_taken_blanks_and_empty_entries_included(
    uds: list[str],
) -> None:
    """Scenario 54: lists keep their order and their duplicates."""
    for text, names in {
        "destHost": ["destHost"],
        "destHost,defaultRoute,default": ["destHost", "defaultRoute", "default"],
        " destHost, ,destCIDR,default,": ["destHost", "destCIDR", "default"],
        "default,destHost,default": ["default", "destHost", "default"],
    }.items():
        options = parse(ServerOptions, [*uds, f"--proxy-strategies={text}"]).options
        assert validate(options) == []
        assert options.strategies == names


@pytest.mark.parametrize(
    ("strategies", "text"),
    [
        ("", "ProxyStrategies cannot be empty"),
        (",", "invalid proxy strategies: proxy strategies cannot be empty"),
        (" , ", "invalid proxy strategies: proxy strategies cannot be empty"),
        ("default,nearest", "invalid proxy strategies: unknown proxy strategy: nearest"),
        ("desthost", "invalid proxy strategies: unknown proxy strategy: desthost"),
    ],
)
def test_a_list_without_a_known_strategy_is_refused(
    strategies: str, text: str, uds: list[str]
) -> None:
    """Scenario 54: unknown and empty."""
    assert problems(*uds, f"--proxy-strategies={strategies}") == [text]


def test_an_agent_selection_that_nobody_knows_is_refused(uds: list[str]) -> None:
    assert problems(*uds, "--agent-selection=least-loaded") == []
    assert problems(*uds, "--agent-selection=best") == [
        "agent-selection must be set to either 'random' or 'least-loaded' not \"best\""
    ]


def test_labels_count_only_with_the_lease_controller(uds: list[str]) -> None:
    assert problems(*uds, "--lease-label=") == []
    assert problems(*uds, "--enable-lease-controller", "--lease-label= a = b ,c=d") == []


def test_every_problem_is_reported(uds: list[str]) -> None:
    assert len(problems(*uds, "--mode=x", "--agent-port=1", "--tls-min-version=x")) == 3


@pytest.mark.parametrize(
    ("mode", "modes"),
    [
        ("grpc", {"grpc"}),
        ("http-connect", {"http-connect"}),
        ("grpc,http-connect", {"grpc", "http-connect"}),
        ("http-connect,grpc", {"grpc", "http-connect"}),
    ],
)
def test_one_frontend_protocol_or_both_side_by_side(
    mode: str, modes: set[str], uds: list[str]
) -> None:
    options = parse(ServerOptions, [*uds, f"--mode={mode}"]).options
    assert validate(options) == []
    assert options.modes == modes


def test_every_safe_cipher_suite_and_version_is_taken(uds: list[str]) -> None:
    suites = [
        f"TLS_ECDHE_{key}_WITH_{cipher}"
        for key in ("ECDSA", "RSA")
        for cipher in ("AES_128_CBC_SHA", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
    ]
    assert problems(*uds, f"--cipher-suites={','.join(suites)}") == []
    for version in ("10", "11", "12", "13"):
        assert problems(*uds, f"--tls-min-version=VersionTLS{version}") == []


def test_w24_a_dial_has_a_bound_unless_another_is_set() -> None:
    assert parse(ServerOptions, []).options.dial_timeout == 30.0
    assert parse(ServerOptions, ["--backend-dial-timeout=5s"]).options.dial_timeout == 5.0
