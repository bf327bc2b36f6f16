"""A directory that a program keeps: made, renewed and read, at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pki.conftest import AGENT, DAY, NOW, SERVER, Made

from konnectivity.errors import CertificateError, ConfigError
from konnectivity.pki import upkeep
from konnectivity.pki.authority import Authority
from konnectivity.pki.directory import Directory
from konnectivity.pki.issuing import initialise
from konnectivity.pki.rotation import advance
from konnectivity.pki.state import State


def renew(made: Made, *, agents: bool = False) -> int:
    return upkeep.renew(made.path, now=made.now, tell=made.told.append, agents=agents)


def test_a_directory_that_is_made_has_all_that_agents_and_servers_need(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "clusters" / "one"
    assert not upkeep.is_made(path)
    upkeep.make(path, ("192.0.2.1", "konnectivity.example.com"), now=NOW, tell=told.append)
    assert upkeep.is_made(path)
    holding = upkeep.read(path, now=NOW)
    assert holding.pair.certificate == (path / "agent" / "tls.crt").read_bytes()
    assert holding.bundle == (path / "ca.crt").read_bytes()
    assert holding.ends["agent"] == pytest.approx(NOW + 90 * DAY)
    assert set(holding.ends) == {"ca", "server", "agent"}
    assert NOW + 55 * DAY < holding.due < NOW + 65 * DAY
    assert told[-1].startswith(f"{path}: made, with a CA of its own")


def test_nothing_is_written_while_nothing_is_due(made: Made) -> None:
    before = upkeep.stamp(made.path)
    assert renew(made) == 0
    assert upkeep.stamp(made.path) == before
    assert not (made.path / "lock").stat().st_size


@pytest.mark.parametrize("name", ["agent/tls.key", "server/tls.crt", "ca.crt", "agent/ca.crt"])
def test_what_is_damaged_is_made_good(made: Made, name: str) -> None:
    (made.path / name).write_text("rubbish")
    renew(made)
    assert not made.look(AGENT).problems
    assert not made.look(SERVER).problems
    assert upkeep.read(made.path, now=NOW).due > NOW


def test_a_change_of_any_file_that_counts_is_seen(made: Made) -> None:
    for name in ("agent/tls.crt", "server/tls.key", "ca.crt", "state.json"):
        before = upkeep.stamp(made.path)
        (made.path / name).write_text("rubbish")
        assert upkeep.stamp(made.path) != before


def test_agents_get_another_certificate_on_demand_and_servers_keep_theirs(made: Made) -> None:
    server, agent = made.look(SERVER).certificate, made.look(AGENT).certificate
    assert renew(made, agents=True) == 1
    assert made.look(SERVER).certificate == server
    assert made.look(AGENT).certificate != agent


def test_a_certificate_that_is_due_and_asked_for_is_issued_once(made: Made) -> None:
    made.now += 70 * DAY
    assert renew(made, agents=True) == 2


def test_a_directory_without_a_certificate_for_agents_gets_one(tmp_path: Path) -> None:
    authority = Authority.create("CA of a test", now=NOW)
    path = tmp_path / "pki"
    initialise(path, State((SERVER,)), authority=authority, now=NOW, tell=lambda _: None)
    with pytest.raises(CertificateError, match="has no certificate with the role agent"):
        upkeep.read(path, now=NOW, pause=lambda _: None)
    assert upkeep.renew(path, now=NOW, tell=lambda _: None) == 1
    assert Directory(path).state.agent == AGENT
    assert upkeep.read(path, now=NOW).bundle == authority.pair.certificate


def test_a_phase_that_was_interrupted_is_finished(made: Made) -> None:
    with made.changing() as directory:
        advance(directory, now=NOW, tell=made.told.append)
    fails = pytest.raises(CertificateError, match="cannot write")
    with made.changing() as directory, made.obstacle("server/tls.crt"), fails:
        advance(directory, now=NOW + 120, tell=made.told.append)
    assert renew(made) == 2
    assert {made.look(each).issuer for each in (SERVER, AGENT)} == {2}


def test_a_pair_that_is_just_being_replaced_is_looked_at_again(made: Made) -> None:
    """Between the two renames the key is the new one and the certificate the old one."""
    new = Directory(made.path).authority(1).issue(AGENT, now=NOW)
    (made.path / "agent" / "tls.key").write_bytes(new.key)

    def go_on(_: float) -> None:
        (made.path / "agent" / "tls.crt").write_bytes(new.certificate)

    assert upkeep.read(made.path, now=NOW, pause=go_on).pair == new


def test_a_pair_of_another_ca_is_not_handed_out(made: Made) -> None:
    pair = Authority.create("somebody else", now=NOW).issue(AGENT, now=NOW)
    for name, content in (("tls.crt", pair.certificate), ("tls.key", pair.key)):
        (made.path / "agent" / name).write_bytes(content)
    with pytest.raises(CertificateError, match=r"agent: is not issued by the CA"):
        upkeep.read(made.path, now=NOW, pause=lambda _: None)


def test_an_old_certificate_is_handed_out_while_there_is_no_other(made: Made) -> None:
    """Whoever has lost the key of the CA is not helped by taking away the certificate, too."""
    (made.path / "ca" / "1.key").unlink()
    late = NOW + 100 * DAY
    with pytest.raises(CertificateError, match="the key of the CA is not here"):
        upkeep.renew(made.path, now=late, tell=made.told.append)
    holding = upkeep.read(made.path, now=late)
    assert holding.certificate.fault_at(late)
    assert holding.due == late


def test_what_is_no_directory_of_ours_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are no certificates here"):
        upkeep.read(tmp_path, now=NOW)
