"""The command line is read by pflag's rules."""

from dataclasses import dataclass
from typing import Any

import pytest

from konnectivity.cli.flags import parse, settings, usage
from konnectivity.errors import ConfigError
from konnectivity.flag import FLOAT, UINT, absence, flag


@dataclass(frozen=True, slots=True)
class Base:
    flags_title = "Base flags"

    v: int = flag(4, "How much to say.", short="v")


@dataclass(frozen=True, slots=True)
class Options(Base):
    server_port: int = flag(8090, "Where to listen.")
    uds_name: str = flag("", "Path of a socket.")
    verify: bool = flag(False, "Look twice.")
    eager: bool = flag(True, "Start at once.")
    keepalive_time: float = flag(3600.0, "Ping interval.")
    rate: float = flag(0.0, "Requests per second.", kind=FLOAT)
    size: int = flag(1800, "Megabytes.", kind=UINT)
    alpn_proto: tuple[str, ...] = flag((), "Protocols.")
    lease_label_selector: str = flag("a=b", "Which leases.", old_name="lease-label")
    lease_namespace: str = flag("ns", "Where leases are.")
    warn: bool = flag(True, "", deprecated="it does nothing")
    name_id: str = flag("", "Name.", variable="NAME_ID")


def options(*argv: str) -> Options:
    return parse(Options, argv).options


def refusal(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(Options, argv)
    return str(caught.value)


def words(value: object) -> str | None:
    return " ".join(value) or "nothing" if isinstance(value, list) else ""


ACCEPTED: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--server-port=1"], {"server_port": 1}),
    (["--server-port", "1"], {"server_port": 1}),
    (["--server-port=1", "--server-port=2"], {"server_port": 2}),
    (["--server-port", "-1"], {"server_port": -1}),
    (["--server-port=0x10"], {"server_port": 16}),
    (["--uds-name=a=b"], {"uds_name": "a=b"}),
    (["--uds-name="], {"uds_name": ""}),
    (["--uds-name", "--verify"], {"uds_name": "--verify"}),
    (["--verify"], {"verify": True}),
    *((["--verify=" + word], {"verify": True}) for word in ("1", "t", "T", "TRUE", "true", "True")),
    *((["--eager=" + w], {"eager": False}) for w in ("0", "f", "F", "FALSE", "false", "False")),
    (["--verify", "--verify=false"], {"verify": False}),
    (["--keepalive-time=1h0m0s"], {"keepalive_time": 3600.0}),
    (["--keepalive-time", "300ms"], {"keepalive_time": 0.3}),
    (["--keepalive-time=0"], {"keepalive_time": 0.0}),
    (["--keepalive-time=1.5h"], {"keepalive_time": 5400.0}),
    (["--rate=2.5"], {"rate": 2.5}),
    (["--size=0"], {"size": 0}),
    (["--alpn-proto=a,b", "--alpn-proto", "c"], {"alpn_proto": ("a", "b", "c")}),
    (['--alpn-proto="a,b",c'], {"alpn_proto": ("a,b", "c")}),
    (["--alpn-proto=[]"], {"alpn_proto": ()}),
    (["--alpn-proto="], {"alpn_proto": ()}),
    (["--alpn-proto=[]", "--alpn-proto=a"], {"alpn_proto": ("a",)}),
    (["-v=5"], {"v": 5}),
    (["-v", "5"], {"v": 5}),
    (["-v5"], {"v": 5}),
    (["--v=5"], {"v": 5}),
    (["--v", "5"], {"v": 5}),
    (["-v", "-1"], {"v": -1}),
]


@pytest.mark.parametrize(("argv", "values"), ACCEPTED, ids=words)
def test_a_command_line_sets_just_what_it_names(argv: list[str], values: dict[str, Any]) -> None:
    line = parse(Options, argv)
    assert line.options == Options(**values)
    assert not line.warnings


REFUSED = [
    (["--bogus"], "unknown flag: --bogus"),
    (["--sever-port=1"], "unknown flag: --sever-port (did you mean --server-port?)"),
    (["--server_port=1"], "unknown flag: --server_port (did you mean --server-port?)"),
    (["--server"], "unknown flag: --server (did you mean --server-port?)"),
    (["-x"], "unknown shorthand flag: 'x' in -x"),
    (["-uds-name=x"], "unknown shorthand flag: 'u' in -uds-name=x (did you mean --uds-name?)"),
    (["--=x"], "bad flag syntax: --=x"),
    (["---v"], "bad flag syntax: ---v"),
    (["--server-port"], "flag needs an argument: --server-port"),
    (["-v"], "flag needs an argument: 'v' in -v"),
    (["-v="], 'invalid argument "=" for "-v, --v" flag: not an integer'),
    (["-vx"], 'invalid argument "x" for "-v, --v" flag: not an integer'),
    (["--server-port="], 'invalid argument "" for "--server-port" flag: not an integer'),
    (["--server-port= 1"], 'invalid argument " 1" for "--server-port" flag: not an integer'),
    (["--server-port=٣"], 'invalid argument "٣" for "--server-port" flag: not an integer'),
    (["--server-port=1.0"], 'invalid argument "1.0" for "--server-port" flag: not an integer'),
    (["--server-port=a\nb"], r'invalid argument "a\nb" for "--server-port" flag: not an integer'),
    (
        ["--server-port=9223372036854775808"],
        'invalid argument "9223372036854775808" for "--server-port" flag: integer out of range',
    ),
    (["--size=-1"], 'invalid argument "-1" for "--size" flag: must not be negative'),
    (["--verify=yes"], 'invalid argument "yes" for "--verify" flag: not true or false'),
    (["--verify="], 'invalid argument "" for "--verify" flag: not true or false'),
    (["--rate=fast"], 'invalid argument "fast" for "--rate" flag: not a number'),
    (
        ["--keepalive-time=5"],
        'invalid argument "5" for "--keepalive-time" flag: '
        "a duration is a number with a unit, like 300ms, 1.5h or 1h0m0s",
    ),
]


@pytest.mark.parametrize(("argv", "text"), REFUSED, ids=words)
def test_a_wrong_flag_is_refused_with_its_name_and_what_is_wrong(
    argv: list[str], text: str
) -> None:
    assert refusal(*argv) == text


def test_an_unbalanced_quote_in_a_list_is_refused() -> None:
    assert refusal('--alpn-proto="a').startswith(
        r'invalid argument "\"a" for "--alpn-proto" flag: not a comma-separated list'
    )


def test_a_word_after_a_boolean_flag_is_an_ignored_argument() -> None:
    line = parse(Options, ["--verify", "false", "--server-port=1"])
    assert line.options == Options(verify=True, server_port=1)
    assert line.warnings == (
        'argument "false" is ignored, only flags are expected '
        "(a boolean flag takes its value as --flag=false)",
    )


def test_words_after_two_dashes_are_ignored_arguments() -> None:
    line = parse(Options, ["--verify", "--", "--server-port=1", "-"])
    assert line.options == Options(verify=True)
    assert len(line.warnings) == 2


def test_a_single_dash_is_an_ignored_argument() -> None:
    assert parse(Options, ["-"]).warnings == ('argument "-" is ignored, only flags are expected',)


def test_a_deprecated_flag_warns_and_counts() -> None:
    line = parse(Options, ["--warn=false"])
    assert line.options == Options(warn=False)
    assert line.warnings == ("Flag --warn has been deprecated, it does nothing",)


def test_an_old_name_sets_the_same_option_and_warns() -> None:
    line = parse(Options, ["--lease-label-selector=x=y", "--lease-label=c=d"])
    assert line.options == Options(lease_label_selector="c=d")
    assert line.warnings == (
        "Flag --lease-label has been deprecated, Use --lease-label-selector instead",
    )


def test_a_default_given_by_the_caller_yields_to_the_flag_even_when_that_is_empty() -> None:
    defaults = {"name_id": "n1"}
    assert parse(Options, [], defaults=defaults).options.name_id == "n1"
    assert parse(Options, ["--name-id="], defaults=defaults).options.name_id == ""


@pytest.mark.parametrize("argv", [["-h"], ["--help"], ["-hv3"], ["--server-port=1", "--help"]])
def test_help_is_wanted(argv: list[str]) -> None:
    assert parse(Options, argv).wants_help


def test_help_is_not_wanted_unless_asked_for() -> None:
    assert not parse(Options, ["--help=false"]).wants_help
    assert not parse(Options, ["-h=false"]).wants_help
    assert not parse(Options, []).wants_version


def test_version_is_wanted() -> None:
    assert parse(Options, ["--version"]).wants_version


def test_the_help_shows_types_defaults_and_sections_but_no_deprecated_flag() -> None:
    text = usage(Options, command="prog", about="A program.", examples=["{command} --verify"])
    lines = text.splitlines()
    assert lines[0] == "Usage: prog [flags]"
    assert "  prog --verify" in lines
    assert "  --server-port int (default 8090)" in lines
    assert "  --keepalive-time duration (default 1h0m0s)" in lines
    assert '  --lease-namespace string (default "ns")' in lines
    assert "      Where leases are." in lines
    assert "  --verify" in lines
    assert "  --eager (default true)" in lines
    assert "  --alpn-proto strings" in lines
    assert "  --name-id string (default $NAME_ID, else a random UUID)" in lines
    assert "  -v int (default 4)" in lines
    assert "  -h, --help" in lines
    assert "--warn" not in text
    assert lines.index("Flags:") < lines.index("Base flags:") < lines.index("Other flags:")
    assert max(map(len, lines)) <= 96


def test_the_settings_name_every_option_with_its_value_in_gos_form() -> None:
    lines = list(settings(options("--alpn-proto=a,b", "--uds-name=a\nb", "--keepalive-time=90s")))
    assert lines[0] == "ServerPort set to 8090."
    assert r'UDSName set to "a\nb".' in lines
    assert "KeepaliveTime set to 1m30s." in lines
    assert "ALPNProto set to [a,b]." in lines
    assert "Eager set to true." in lines
    assert lines[-1] == "V set to 4."
    assert len(lines) == 13


def test_only_a_file_that_is_not_there_is_absent(tmp_path: Any) -> None:
    file = tmp_path / "file"
    file.touch()
    assert absence(str(file)) == ""
    assert absence(str(file / "below")) == ""  # "not a directory" shows when it is read
    assert absence(f"{tmp_path}/no") == f"stat {tmp_path}/no: no such file or directory"
