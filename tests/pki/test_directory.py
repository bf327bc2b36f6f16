"""Leaves in a directory: issued, renewed when they are due, healed when they are damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.pki.conftest import AGENT, DAY, NOW, SERVER, Made

from konnectivity.errors import CertificateError, ConfigError
from konnectivity.pki.authority import Authority
from konnectivity.pki.directory import Directory
from konnectivity.pki.inspection import examine
from konnectivity.pki.issuing import add, initialise
from konnectivity.pki.role import Leaf, Role
from konnectivity.pki.state import Phase, Rotation, State, decode, encode


def test_a_new_directory_is_whole(made: Made) -> None:
    directory = Directory(made.path)
    findings = examine(directory, now=NOW)
    assert findings.all_problems == []
    assert [report.name for report in findings.leaves] == ["server", "agent"]
    assert findings.leaves[0].hosts == SERVER.hosts
    bundle = (made.path / "ca" / "1.crt").read_bytes()
    for name in ("ca.crt", "server/ca.crt", "agent/ca.crt"):
        assert (made.path / name).read_bytes() == bundle


def test_nothing_is_renewed_before_it_is_due(made: Made) -> None:
    before = made.contents()
    made.now = NOW + 50 * DAY
    assert made.renew() == 0
    assert made.contents() == before


def test_each_leaf_is_renewed_when_it_is_due(made: Made) -> None:
    due = {leaf: made.look(leaf).renew_at for leaf in (SERVER, AGENT)}
    first, last = sorted(due, key=lambda leaf: due[leaf] or 0)
    made.now = due[first] or 0
    assert made.renew() == 1
    assert "was due at 20" in made.told[-1]
    assert made.look(last).renew_at == due[last]
    assert (made.look(first).renew_at or 0) > made.now + 50 * DAY


def test_all_are_renewed_on_demand_with_new_keys(made: Made) -> None:
    before = made.contents()
    assert made.renew(everything=True) == 2
    changed = {name for name, content in made.contents().items() if content != before[name]}
    assert changed == {"server/tls.crt", "server/tls.key", "agent/tls.crt", "agent/tls.key"}


def spoil_certificate(folder: Path) -> None:
    (folder / "tls.crt").write_text("x")


def spoil_key(folder: Path) -> None:
    (folder / "tls.key").write_text("x")


def swap_key(folder: Path) -> None:
    (folder / "tls.key").write_bytes((folder.parent / "agent" / "tls.key").read_bytes())


def show_key(folder: Path) -> None:
    (folder / "tls.key").chmod(0o640)


def delete_key(folder: Path) -> None:
    (folder / "tls.key").unlink()


def take_from_stranger(folder: Path) -> None:
    pair = Authority.create("CA of a test", now=NOW).issue(SERVER, now=NOW)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)


def take_from_agent(folder: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        (folder / name).write_bytes((folder.parent / "agent" / name).read_bytes())


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (spoil_certificate, "no certificate in PEM that parses"),
        (spoil_key, "no private key in PEM that parses"),
        (swap_key, "does not belong to the certificate"),
        (show_key, "mode 0640 lets others read the key; must be 0600"),
        (delete_key, "no such file"),
        (take_from_stranger, "is not issued by the CA of this directory"),
        (take_from_agent, "is not for the role server"),
    ],
)
def test_a_damaged_leaf_is_told_of_and_healed(
    made: Made, damage: Callable[[Path], None], problem: str
) -> None:
    damage(made.path / "server")
    found = examine(Directory(made.path), now=NOW).all_problems
    assert any(each.startswith("server: ") and problem in each for each in found)
    assert made.renew() == 1
    assert examine(Directory(made.path), now=NOW).all_problems == []


def test_a_deleted_folder_comes_back(made: Made) -> None:
    for each in (made.path / "server").iterdir():
        each.unlink()
    (made.path / "server").rmdir()
    made.renew()
    assert examine(Directory(made.path), now=NOW).all_problems == []


def test_an_altered_bundle_is_told_of_and_healed(made: Made) -> None:
    (made.path / "agent" / "ca.crt").write_text("x")
    (made.path / "ca.crt").unlink()
    found = examine(Directory(made.path), now=NOW).all_problems
    assert len(found) == 2
    assert made.renew() == 0
    assert examine(Directory(made.path), now=NOW).all_problems == []


def test_expired_certificates_are_told_of(made: Made) -> None:
    problems = examine(Directory(made.path), now=NOW + 91 * DAY).all_problems
    assert [each.partition(" at ")[0] for each in problems] == [
        "server: has expired",
        "agent: has expired",
    ]


def test_the_key_of_the_ca_may_be_elsewhere_until_it_is_needed(made: Made) -> None:
    (made.path / "ca" / "1.key").unlink()
    assert examine(Directory(made.path), now=NOW).all_problems == []
    assert made.renew() == 0
    before = made.contents()
    with pytest.raises(CertificateError, match=r"1\.key: the key of the CA is not here"):
        made.renew(everything=True)
    assert made.contents() == before


def test_a_key_of_the_ca_that_others_can_read_is_told_of(made: Made) -> None:
    (made.path / "ca" / "1.key").chmod(0o644)
    (problem,) = examine(Directory(made.path), now=NOW).all_problems
    assert "mode 0644" in problem


def test_one_more_leaf_is_issued_and_renewed_with_the_others(made: Made) -> None:
    late = Leaf("agent-eu", Role.AGENT)
    with made.changing() as directory:
        add(directory, late, now=NOW, tell=made.told.append, replacing=False)
    assert made.look(late).problems == ()
    assert made.renew(everything=True) == 3
    assert (made.path / "agent-eu" / "ca.crt").read_bytes() == (made.path / "ca.crt").read_bytes()


def test_a_leaf_is_replaced_only_if_that_is_said(made: Made) -> None:
    other = Leaf("server", Role.SERVER, ("b.example.com",))
    before = made.contents()
    with made.changing() as directory:
        with pytest.raises(ConfigError, match="there is one already; --replace replaces it"):
            add(directory, other, now=NOW, tell=made.told.append, replacing=False)
        new = Leaf("new", Role.AGENT)
        with pytest.raises(ConfigError, match="there is none to be replaced"):
            add(directory, new, now=NOW, tell=made.told.append, replacing=True)
        assert made.contents() == before
        add(directory, other, now=NOW, tell=made.told.append, replacing=True)
    assert made.look(other).hosts == ("b.example.com",)
    assert made.look(other).problems == ()


def test_where_there_are_no_certificates_the_way_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="konnectivity certs init makes them"):
        Directory(tmp_path)
    with (
        pytest.raises(ConfigError, match="konnectivity certs init makes them"),
        Directory.changing(tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"version": 1}', '{"version": 1, "leaves": 1}']
)
def test_a_damaged_state_is_one_line(made: Made, content: str) -> None:
    (made.path / "state.json").write_text(content)
    with pytest.raises(ConfigError, match=r"state\.json: damaged: .*; restore it") as caught:
        Directory(made.path)
    assert "\n" not in str(caught.value)


def test_a_state_of_a_later_version_is_left_alone(made: Made) -> None:
    (made.path / "state.json").write_text(json.dumps({"version": 2}))
    with pytest.raises(ConfigError, match="version 2 is unknown; 1 is known"):
        Directory(made.path)


def test_the_state_is_read_as_it_was_written() -> None:
    rotation = Rotation(Phase.REISSUE, old=1, new=2, since=NOW, issued=True)
    state = State((SERVER, AGENT), lifetime=DAY, rotation=rotation)
    assert decode(encode(state), path="it") == state


def test_a_directory_that_was_mounted_empty_is_used(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    authority = Authority.create("CA", now=NOW)
    initialise(tmp_path, State((AGENT,)), authority=authority, now=NOW, tell=lambda _: None)
    assert (tmp_path / "agent" / "tls.crt").exists()
