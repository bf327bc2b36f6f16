"""A rotation of the CA waits for the cluster that a manager brings the certificates to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.pki.conftest import AGENT, NOW, Made

from konnectivity.errors import CertificateError, ConfigError
from konnectivity.pki import following
from konnectivity.pki.directory import Directory
from konnectivity.pki.role import Leaf, Role
from konnectivity.pki.rotation import AFTER, Progress, advance, progress, roll_back
from konnectivity.pki.state import Phase


def note(made: Made) -> None:
    """The cluster has all that the directory holds."""
    bundle = Directory(made.path).bundle()
    certificate = made.look(AGENT).certificate
    assert certificate is not None
    fingerprint = certificate.fingerprint_sha256
    following.note(made.path, bundle=bundle, certificate=fingerprint, now=made.now)


def step(made: Made, wait: float = AFTER) -> Phase:
    made.now += wait
    with made.changing() as directory:
        return advance(directory, now=made.now, tell=made.told.append)


def test_no_step_begins_before_the_cluster_has_had_all_for_a_while(made: Made) -> None:
    note(made)
    assert step(made) is Phase.TRUST_BOTH
    with pytest.raises(CertificateError, match="the cluster does not have the bundle of CAs yet"):
        step(made)
    note(made)
    with pytest.raises(CertificateError, match="the next step is possible from"):
        step(made, wait=AFTER - 1)
    assert step(made, wait=1) is Phase.REISSUE
    with pytest.raises(CertificateError, match="does not have the certificate agent yet"):
        step(made)
    note(made)
    assert step(made) is Phase.DROP_OLD


def test_the_first_step_and_the_next_rotation_wait_for_nobody(made: Made) -> None:
    note(made)
    made.renew(everything=True)
    assert step(made) is Phase.TRUST_BOTH


def test_a_new_ca_that_has_issued_is_not_forgotten_before_the_cluster_is_back(made: Made) -> None:
    note(made)
    for _ in range(2):
        step(made)
        note(made)
    with made.changing() as directory:
        assert roll_back(directory, now=made.now, tell=made.told.append) is Phase.TRUST_BOTH
    made.now += AFTER
    refused = pytest.raises(CertificateError, match="does not have the certificate agent yet")
    with made.changing() as directory, refused:
        roll_back(directory, now=made.now, tell=made.told.append)
    note(made)
    made.now += AFTER
    with made.changing() as directory:
        assert roll_back(directory, now=made.now, tell=made.told.append) is None


def test_how_far_a_rotation_has_come_includes_the_cluster(made: Made) -> None:
    note(made)
    step(made)

    def found() -> Progress:
        progress_ = progress(Directory(made.path), now=made.now)
        assert progress_ is not None
        return progress_

    assert found().missing == "bundle of CAs"
    made.now += 50
    note(made)
    assert found() == replace(found(), missing="", next_at=made.now + AFTER)


def test_the_time_stays_while_the_cluster_has_the_same(made: Made) -> None:
    note(made)
    made.now += 100
    note(made)
    found = following.recall(made.path)
    assert found is not None
    assert found.since == NOW


def test_a_note_that_is_damaged_stops_a_step_and_is_written_anew(made: Made) -> None:
    step(made)
    (made.path / following.FILE).write_text('{"bundle": 1}')
    with pytest.raises(CertificateError, match=r"cluster.json: damaged; delete it"):
        step(made)
    note(made)
    assert step(made) is Phase.REISSUE


def test_no_certificate_can_be_called_like_the_note() -> None:
    with pytest.raises(ConfigError, match=r"none of .*cluster\.json"):
        Leaf(following.FILE, Role.AGENT)
