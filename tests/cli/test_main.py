"""The commands as a user meets them: output, exit status, what gets loaded."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from konnectivity import __version__
from konnectivity.agent.options import AgentOptions, validate
from konnectivity.cli.flags import parse
from konnectivity.cli.run import Program, identity, start
from konnectivity.errors import ConfigError, LinkError
from konnectivity.flag import flags_of
from konnectivity.observe import logs
from konnectivity.server.options import ServerOptions


def konnectivity(*argv: str) -> tuple[int, str, str]:
    """Run the command as a process: exit status, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "konnectivity", *argv], capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stdout, done.stderr


def test_without_arguments_the_table_of_commands_is_shown() -> None:
    status, out, err = konnectivity()
    assert (status, err) == (0, "")
    for name in ("server", "agent", "demo", "version", "help"):
        assert f"\n  {name} " in out
    assert "\nExamples:\n" in out
    assert konnectivity("--help") == (status, out, err)


def test_the_version_is_shown() -> None:
    version = f"konnectivity {__version__}\n"
    assert konnectivity("version") == (0, version, "")
    assert konnectivity("--version") == (0, version, "")
    assert konnectivity("agent", "--version") == (0, version, "")


def test_an_unknown_command_is_one_line_with_a_hint() -> None:
    assert konnectivity("agnet") == (
        2,
        "",
        "Error: unknown command: agnet (did you mean agent?); see konnectivity --help\n",
    )
    assert konnectivity("--agent")[::2] == (
        2,
        "Error: unknown flag: --agent (did you mean agent?); see konnectivity --help\n",
    )


@pytest.mark.parametrize("argv", [["server", "--help"], ["server", "-h"], ["help", "server"]])
def test_help_of_a_command_lists_its_flags(argv: list[str]) -> None:
    status, out, err = konnectivity(*argv)
    assert (status, err) == (0, "")
    assert out.startswith("Usage: konnectivity server [flags]\n")
    assert "\n  --cluster-ca-cert string\n" in out


def test_an_unknown_flag_is_one_line_and_status_2() -> None:
    assert konnectivity("server", "--agent_port=1") == (
        2,
        "",
        "Error: unknown flag: --agent_port (did you mean --agent-port?); "
        "see konnectivity server --help\n",
    )


def test_all_that_is_wrong_is_reported_at_once(tmp_path: Path) -> None:
    status, out, err = konnectivity(
        "agent", f"--ca-cert={tmp_path}/no", "--admin-server-port=0", "--agent-identifiers=x=y"
    )
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        "Error: failed to validate agent options with error checking agent CA cert "
        f"{tmp_path}/no, got stat {tmp_path}/no: no such file or directory",
        "Error: failed to validate agent options with admin server port 0 must be greater than 0",
        "Error: failed to validate agent options with "
        "agent address is invalid: unknown address type: x",
    ]


def test_the_server_does_not_start_with_half_of_an_authentication(tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    status, _, err = konnectivity(
        "server",
        f"--uds-name={tmp_path}/s",
        "--server-port=0",
        f"--cluster-cert={file}",
        f"--cluster-key={file}",
        "--agent-namespace=kube-system",
    )
    assert status == 2
    start = "Error: failed to validate server options with"
    assert err.splitlines() == [
        f"{start} --{name} cannot be empty when agent authentication is enabled"
        for name in ("agent-service-account", "authentication-audience")
    ]


@pytest.mark.parametrize(
    ("function", "name"), [("proxy_server", "proxy-server"), ("proxy_agent", "proxy-agent")]
)
def test_the_drop_in_names_take_the_same_flags(function: str, name: str) -> None:
    code = f"from konnectivity.cli.main import {function} as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--server-cuont=1"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: unknown flag: --server-cuont (did you mean --server-")
    assert done.stderr.endswith(f"; see {name} --help\n")


def test_reading_the_agents_flags_loads_neither_server_nor_what_people_look_at() -> None:
    code = (
        "import sys; from konnectivity.cli.main import command; "
        "command(['agent', '--help']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "konnectivity.agent.options" in loaded
    unwanted = {"rich", "cryptography", "argparse", "asyncio", "konnectivity.server"}
    assert not loaded & (unwanted | {"konnectivity.demo", "prometheus_client"})


# The programs themselves stand in other files; these functions take their place, so that what
# `start` makes of their outcomes can be seen.

seen: list[AgentOptions] = []


def end_well(options: AgentOptions) -> int:
    seen.append(options)
    return 0


def end_by_bad_file(options: AgentOptions) -> int:
    raise ConfigError("ca-cert: not a\ncertificate")


def end_by_lost_server(options: AgentOptions) -> int:
    raise LinkError("tls", "no server")


def end_by_interrupt(options: AgentOptions) -> int:
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _closed_logs() -> Iterator[None]:
    seen.clear()
    yield
    logs.close()


@pytest.fixture
def ca(tmp_path: Path) -> str:
    file = tmp_path / "ca.crt"
    file.touch()
    return f"--ca-cert={file}"


def run(app: str, *argv: str, environ: dict[str, str] | None = None) -> int:
    program = Program("agent", AgentOptions, validate, f"{__name__}:{app}", "About.", [])
    return start(program, argv, environ or {}, command="proxy-agent")


@pytest.mark.parametrize(
    ("app", "status", "line"),
    [
        ("end_well", 0, ""),
        ("end_by_bad_file", 2, "Error: ca-cert: not a\\ncertificate\n"),
        ("end_by_lost_server", 1, "Error: no server\n"),
        ("end_by_interrupt", 130, ""),
    ],
)
def test_the_outcome_of_the_program_becomes_one_line_and_an_exit_status(
    app: str, status: int, line: str, ca: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ca, "-v=0") == status
    assert capsys.readouterr() == ("", line)


def test_the_server_id_comes_from_flag_then_environment_then_chance() -> None:
    environ = {"PROXY_SERVER_ID": "from-environment"}
    ids = [
        parse(ServerOptions, argv, defaults=identity(ServerOptions, given)).options.server_id
        for argv, given in (
            (["--server-id=from-flag"], environ),
            ([], environ),
            ([], {"PROXY_SERVER_ID": ""}),
            ([], {"PROXY_AGENT_ID": "of another program"}),
        )
    ]
    assert ids[:2] == ["from-flag", "from-environment"]
    assert [len(each) for each in ids[2:]] == [36, 36]
    assert ids[2] != ids[3]


def test_the_agent_id_comes_from_flag_then_environment_then_chance(ca: str) -> None:
    environ = {"PROXY_AGENT_ID": "from-environment"}
    run("end_well", ca, "--agent-id=from-flag", environ=environ)
    run("end_well", ca, "--agent-id=", environ=environ)
    run("end_well", ca, environ=environ)
    run("end_well", ca, environ={"PROXY_AGENT_ID": ""})
    run("end_well", ca)
    ids = [options.agent_id for options in seen]
    assert ids[:3] == ["from-flag", "", "from-environment"]
    assert [len(each) for each in ids[3:]] == [36, 36]
    assert ids[3] != ids[4]


def test_options_are_logged_at_start_behind_what_is_odd_about_the_command_line(
    ca: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("end_well", ca, "--lease-label=a=b", "false")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "Flag --lease-label has been deprecated, Use --lease-label-selector instead"
    )
    assert lines[1].startswith('argument "false" is ignored')
    texts = [line.split("] ", 1)[1] for line in lines[2:]]
    assert "ProxyServerPort set to 8091." in texts
    assert len(texts) == len(flags_of(AgentOptions))


def test_options_are_not_logged_at_verbosity_0(ca: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("end_well", ca, "-v=0")
    assert capsys.readouterr().err == ""


def test_a_log_file_that_cannot_be_written_is_wrong_configuration(
    ca: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("end_well", ca, "--logtostderr=false", f"--log-file={tmp_path}") == 2
    assert capsys.readouterr().err == (
        f'Error: cannot write to --log-file="{tmp_path}": {os.strerror(21)}\n'
    )
    assert not seen
