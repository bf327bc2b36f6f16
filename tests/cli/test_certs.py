"""`konnectivity certs` as a user meets it: output, exit status, and no word of a secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from konnectivity.cli import certs
from konnectivity.cli.main import command

Captured = pytest.CaptureFixture[str]
NAMES = "--server-names=konnectivity.example.com,10.0.0.1,10.0.0.1"


class Certs:
    """Calls the command for one directory."""

    def __init__(self, directory: Path, captured: Captured) -> None:
        self.directory = directory
        self._captured = captured

    def __call__(self, action: str, *flags: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr; a secret in either fails the test."""
        status = certs.command([action, f"--directory={self.directory}", *flags])
        found = self._captured.readouterr()
        shown = found.out + found.err
        assert "PRIVATE" not in shown
        assert "Traceback" not in shown
        for key in self.directory.rglob("*.key"):
            for line in key.read_text(errors="replace").splitlines():
                assert len(line) < 20 or line not in shown
        return status, found.out, found.err

    def show(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self("show", "-o", "json")[1])
        return found


@pytest.fixture
def run(tmp_path: Path, capsys: Captured) -> Certs:
    return Certs(tmp_path / "pki", capsys)


@pytest.fixture
def made(run: Certs) -> Certs:
    assert run("init", NAMES, "--frontend-names=127.0.0.1")[0] == 0
    return run


def test_init_makes_all_certificates_and_says_which(run: Certs) -> None:
    status, out, err = run("init", NAMES)
    assert (status, err) == (0, "")
    assert [line.partition(":")[0] for line in out.splitlines()] == ["server", "agent"]
    assert all("valid until 20" in line for line in out.splitlines())
    files = {str(each.relative_to(run.directory)) for each in run.directory.glob("*/*")}
    assert files == {
        "ca/1.crt",
        "ca/1.key",
        *(f"{leaf}/{name}" for leaf in ("server", "agent") for name in ("tls.crt", "tls.key")),
        "server/ca.crt",
        "agent/ca.crt",
    }


def test_init_twice_changes_nothing(made: Certs) -> None:
    before = made.show()
    status, out, err = made("init", NAMES)
    assert (status, out) == (2, "")
    assert err == (f"Error: {made.directory}: holds agent already; an empty directory is needed\n")
    assert made.show() == before


def test_show_is_a_table_for_people(made: Certs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    status, out, err = made("show")
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert [row[0] for row in rows if row[0] in ("server", "agent", "frontend-client")]
    assert next(row[-2:] for row in rows if row[0] == "server") == [
        "konnectivity.example.com,",
        "10.0.0.1",
    ]


def test_show_is_json_for_programs(made: Certs) -> None:
    found = made.show()
    assert found["problems"] == []
    assert found["rotation"] is None
    authorities, leaves = found["authorities"], found["leaves"]
    assert isinstance(authorities, list)
    assert isinstance(leaves, list)
    assert [each["key_present"] for each in authorities] == [True]
    assert [each["name"] for each in leaves] == [
        "server",
        "agent",
        "frontend-server",
        "frontend-client",
    ]
    server = leaves[0]
    assert server["sans"] == ["konnectivity.example.com", "10.0.0.1"]
    assert server["subject"] == "CN=server,O=konnectivity:server"
    assert server["issuer"] == authorities[0]["subject"]
    assert len(server["fingerprint_sha256"]) == 64
    assert server["not_before"] < server["renew_at"] < server["not_after"]


def test_show_tells_what_is_wrong_and_says_so_by_its_status(made: Certs) -> None:
    (made.directory / "agent" / "tls.key").write_bytes(
        (made.directory / "server" / "tls.key").read_bytes()
    )
    status, out, _ = made("show")
    assert status == 1
    assert "tls.key: does not belong to the certificate" in out
    assert made("show", "-o=json")[0] == 1
    assert made("rotate")[:1] == (0,)
    assert made("show")[0] == 0


def test_issue_makes_one_more(made: Certs) -> None:
    assert made("issue", "--name=agent-eu")[0] == 0
    assert (made.directory / "agent-eu" / "tls.key").stat().st_mode & 0o777 == 0o600
    status, _, err = made("issue", "--name=agent-eu")
    assert status == 2
    assert err == "Error: certificate agent-eu: there is one already; --replace replaces it\n"
    assert made("issue", "--name=agent-eu", "--replace")[0] == 0


def test_rotate_says_when_there_is_nothing_to_do(made: Certs) -> None:
    assert made("rotate") == (0, "no certificate is due\n", "")
    assert len(made("rotate", "--all")[1].splitlines()) == 4


def test_another_ca_in_three_calls_with_the_way_shown(made: Certs) -> None:
    assert made("rotate", "--ca", "--status")[1] == "no rotation of the CA is under way\n"
    assert made("rotate", "--ca")[0] == 0
    status, out, err = made("rotate", "--ca")
    assert (status, out) == (1, "")
    assert err.startswith("Error: phase trust-both ended at 20")
    _, out, _ = made("rotate", "--ca", "--after=0s")
    assert "agent: issued" in out
    assert "(2 of 4; was issued by CA 1)" in out
    _, out, _ = made("rotate", "--ca", "--status")
    assert [line.split()[:2] for line in out.splitlines()[:2]] == [
        ["trust-both", "done"],
        ["reissue", "done"],
    ]
    assert "4 of 4 certificates of CA 2" in out
    assert "drop-old from 20" in out
    assert json.loads(made("rotate", "--ca", "--status", "-o=json")[1])["leaves_of_old"] == []
    assert made("rotate", "--ca", "--after=0s")[0] == 0
    rotation = made.show()["rotation"]
    assert isinstance(rotation, dict)
    assert rotation["phase"] == "drop-old"
    assert made("rotate", "--ca", "--rollback")[1] == (
        "phase reissue is complete: CA 1 and CA 2 are trusted, all certificates are of CA 2\n"
    )


def test_a_ca_is_supplied_as_two_files(run: Certs, tmp_path: Path) -> None:
    subject = ("-subj", "/CN=of the company", "-days", "30")
    made = ("-keyout", tmp_path / "ca.key", "-out", tmp_path / "ca.crt")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *made],
        check=True,
        capture_output=True,
    )
    flags = (f"--ca-cert={tmp_path}/ca.crt", f"--ca-key={tmp_path}/ca.key")
    assert run("init", NAMES, *flags)[0] == 0
    leaves = run.show()["leaves"]
    assert isinstance(leaves, list)
    assert {each["issuer"] for each in leaves} == {"CN=of the company"}
    assert (run.directory / "ca" / "1.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["init"], "--server-names: needs the names or IP addresses that agents connect to"),
        (["init", "--server-names=a b"], 'certificate server: "a b" is neither a DNS name nor'),
        (["init", NAMES, "--leaf-lifetime=1m"], "--leaf-lifetime: must be at least 1h"),
        (["init", NAMES, "--ca-key=x"], "--ca-cert and --ca-key: are needed together"),
        (["init", NAMES, "--bogus"], "unknown flag: --bogus; see konnectivity certs init --help"),
        (["init", NAMES, "x"], 'argument "x" is ignored'),
        (["issue", "--name=x", "--role=king"], "--role: king is none of server, frontend-server"),
        (["issue", "--name=x"], "{}: there are no certificates here; konnectivity certs init"),
        (["show", "--directory="], "--directory: must not be empty"),
        (["show"], "{}: there are no certificates here; konnectivity certs init makes them"),
        (["show", "-o=yaml"], "--output: yaml is none of table, json"),
        (["rotate"], "{}: there are no certificates here"),
        (["rotate", "--status"], "--status: needs --ca"),
        (["rotate", "--ca", "--all"], "--ca: goes with one of --status and --rollback, and not"),
        (["rotate", "--ca", "--after=-1s"], "--after: must not be negative"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(
    run: Certs, words: list[str], complaint: str
) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert err.startswith(f"Error: {complaint.replace('{}', str(run.directory))}")
    assert err.count("\n") == 1
    assert not run.directory.exists()


def test_what_fails_is_one_line_and_status_1(made: Certs, tmp_path: Path) -> None:
    status, out, err = made("rotate", "--ca", f"--ca-cert={tmp_path}/x", f"--ca-key={tmp_path}/x")
    assert (status, out) == (1, "")
    assert err == f"Error: {tmp_path}/x: no such file or directory\n"
    (made.directory / "ca" / "1.key").unlink()
    status, out, err = made("rotate", "--all")
    assert (status, out) == (1, "")
    assert err.endswith("1.key: the key of the CA is not here, so it cannot issue\n")


def test_help_shows_every_action_and_its_flags(capsys: Captured) -> None:
    assert command(["certs"]) == command(["certs", "--help"]) == command(["help", "certs"]) == 0
    shown = capsys.readouterr().out
    for action in certs.ACTIONS:
        assert f"\n  {action} " in shown
        assert certs.command([action, "--help"]) == 0
        assert "\n  --directory string " in capsys.readouterr().out
    assert certs.command(["burn"]) == 2
    assert capsys.readouterr().err == (
        "Error: unknown action: burn; konnectivity certs has init, issue, show, rotate\n"
    )


def test_server_and_agent_load_nothing_of_it() -> None:
    script = (
        "import sys; import konnectivity.server.app, konnectivity.agent.app, konnectivity.cli.main;"
        "print([name for name in sys.modules if name.startswith(('cryptography', "
        "'konnectivity.pki'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
