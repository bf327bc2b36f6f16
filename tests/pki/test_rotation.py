"""From one CA to another: what each phase leaves, in which order, and every way back."""

from __future__ import annotations

import pytest
from tests.pki.conftest import AGENT, DAY, NOW, SERVER, Made

from konnectivity.errors import CertificateError, ConfigError
from konnectivity.pki import files
from konnectivity.pki.authority import Authority
from konnectivity.pki.directory import Directory
from konnectivity.pki.inspection import examine
from konnectivity.pki.rotation import AFTER, Progress, advance, progress, roll_back
from konnectivity.pki.state import Phase


def step(made: Made, *, supplied: Authority | None = None, wait: float = AFTER) -> Phase:
    made.now += wait
    with made.changing() as directory:
        return advance(directory, now=made.now, tell=made.told.append, supplied=supplied)


def back(made: Made, *, wait: float = 0.0) -> Phase | None:
    made.now += wait
    with made.changing() as directory:
        return roll_back(directory, now=made.now, tell=made.told.append)


def status(made: Made) -> Progress:
    found = progress(Directory(made.path), now=made.now)
    assert found is not None
    return found


def bundle(made: Made) -> list[int]:
    """The numbers of the CAs in every bundle; all must be the same."""
    contents = {path.read_bytes() for path in Directory(made.path).bundle_paths()}
    (content,) = contents
    return [
        number
        for number in range(1, 5)
        if (path := made.path / "ca" / f"{number}.crt").exists() and path.read_bytes() in content
    ]


def issuers(made: Made) -> list[int | None]:
    return [made.look(leaf).issuer for leaf in (SERVER, AGENT)]


def keys(made: Made) -> list[str]:
    return sorted(path.name for path in (made.path / "ca").glob("*.key"))


def problems(made: Made) -> list[str]:
    return examine(Directory(made.path), now=made.now).all_problems


def test_three_phases_lead_to_the_new_ca(made: Made) -> None:
    assert progress(Directory(made.path), now=NOW) is None
    assert step(made) is Phase.TRUST_BOTH
    assert (bundle(made), issuers(made)) == ([1, 2], [1, 1])
    assert step(made) is Phase.REISSUE
    assert (bundle(made), issuers(made)) == ([1, 2], [2, 2])
    assert step(made) is Phase.DROP_OLD
    assert (bundle(made), issuers(made)) == ([2], [2, 2])
    assert keys(made) == ["2.key"]
    assert problems(made) == []
    assert made.told[-1] == (
        "phase drop-old is complete: CA 2 is trusted and issues, CA 1 is not trusted any more"
    )


def test_a_second_rotation_follows_the_first(made: Made) -> None:
    for _ in range(6):
        step(made)
    assert (bundle(made), issuers(made), keys(made)) == ([3], [3, 3], ["3.key"])
    assert not (made.path / "ca" / "1.crt").exists()


def test_no_step_begins_before_the_last_one_has_been_taken_over(made: Made) -> None:
    step(made)
    for done in (Phase.TRUST_BOTH, Phase.REISSUE, Phase.DROP_OLD):
        before = made.contents()
        with pytest.raises(CertificateError, match=f"phase {done} ended at 20.*from 20.*--after"):
            step(made, wait=AFTER - 1)
        assert made.contents() == before
        step(made, wait=1)


def test_the_old_ca_is_not_dropped_while_a_leaf_of_it_is_there(made: Made) -> None:
    step(made)
    old = {name: (made.path / "agent" / name).read_bytes() for name in ("tls.key", "tls.crt")}
    step(made)
    files.put(made.path / "agent", old)  # restored from a backup
    with pytest.raises(CertificateError, match="CA 2 has not issued agent; konnectivity"):
        step(made)
    assert (status(made).phase, bundle(made)) == (Phase.REISSUE, [1, 2])
    (made.path / "agent" / "tls.crt").unlink()  # whatever a program may use that runs
    with pytest.raises(CertificateError, match="CA 2 has not issued agent; konnectivity"):
        step(made)
    assert made.renew() == 1
    assert step(made) is Phase.DROP_OLD


def test_renewals_go_on_within_a_rotation(made: Made) -> None:
    for expected in ([1, 1], [2, 2], [2, 2]):
        step(made)
        assert made.renew(everything=True) == 2
        assert issuers(made) == expected


def test_every_phase_can_be_taken_back(made: Made) -> None:
    before = made.contents()
    step(made)
    assert back(made) is None
    assert made.contents() == before

    step(made)
    step(made)
    assert back(made) is Phase.TRUST_BOTH
    assert (bundle(made), issuers(made)) == ([1, 2], [1, 1])
    assert step(made) is Phase.REISSUE
    assert step(made) is Phase.DROP_OLD
    assert back(made) is Phase.REISSUE
    assert (bundle(made), issuers(made)) == ([1, 2], [2, 2])
    with pytest.raises(CertificateError, match=r"1\.key: the key of the CA is not here"):
        back(made)
    assert step(made) is Phase.DROP_OLD
    assert problems(made) == []


def test_the_new_ca_is_not_forgotten_while_its_leaves_may_be_in_use(made: Made) -> None:
    step(made)
    step(made)
    back(made)
    with pytest.raises(CertificateError, match="the next step is possible from"):
        back(made)
    assert back(made, wait=AFTER) is None
    assert (bundle(made), issuers(made), keys(made)) == ([1], [1, 1], ["1.key"])


def test_a_way_back_that_was_interrupted_is_finished_before_the_new_ca_is_forgotten(
    made: Made,
) -> None:
    step(made)
    step(made)
    with made.obstacle("agent/tls.key"), pytest.raises(CertificateError, match="cannot write"):
        back(made)
    with pytest.raises(CertificateError, match="CA 1 has not issued agent"):
        back(made, wait=AFTER)
    with made.changing() as directory:  # the last file was written, and the power went
        directory.put_leaf(AGENT, directory.authority(1).issue(AGENT, now=made.now))
    with pytest.raises(CertificateError, match="interrupted; konnectivity certs rotate finishes"):
        back(made, wait=AFTER)
    made.renew()
    assert back(made, wait=AFTER) is None
    assert problems(made) == []


def test_there_is_nothing_to_take_back_at_first(made: Made) -> None:
    with pytest.raises(ConfigError, match="there is no rotation"):
        back(made)


def test_an_interrupted_phase_is_shown_and_goes_on(made: Made) -> None:
    step(made)
    cannot = pytest.raises(CertificateError, match=r"cannot write .*agent/tls\.key")
    with made.obstacle("agent/tls.key"), cannot:
        step(made)
    found = status(made)
    assert (found.phase, found.complete, found.next_at) == (Phase.REISSUE, False, None)
    assert (found.of_old, found.of_new) == (("agent",), ("server",))
    before = made.look(SERVER).certificate
    assert step(made, wait=0) is Phase.REISSUE
    assert (status(made).of_old, status(made).next_at) == ((), made.now + AFTER)
    assert made.look(SERVER).certificate == before


def test_an_interrupted_phase_is_finished_by_an_ordinary_renewal_too(made: Made) -> None:
    with made.obstacle("agent/ca.crt"), pytest.raises(CertificateError, match="cannot write"):
        step(made)
    made.renew()
    assert status(made).complete
    assert bundle(made) == [1, 2]


def test_an_interrupted_phase_can_be_taken_back(made: Made) -> None:
    step(made)
    with made.obstacle("agent/tls.key"), pytest.raises(CertificateError, match="cannot write"):
        step(made)
    assert back(made) is Phase.TRUST_BOTH
    assert issuers(made) == [1, 1]


def test_the_new_ca_can_be_supplied(made: Made) -> None:
    supplied = Authority.create("of the company", now=NOW)
    step(made, supplied=supplied)
    assert (made.path / "ca" / "2.crt").read_bytes() == supplied.pair.certificate
    with pytest.raises(ConfigError, match="only when a rotation begins"):
        step(made, supplied=supplied)
    step(made)
    assert made.look(AGENT).issuer_name == "CN=of the company"


def test_a_ca_with_the_key_of_the_present_one_is_none_to_rotate_to(made: Made) -> None:
    before = made.contents()
    with made.changing() as directory:
        same = directory.authority(1)
    with pytest.raises(ConfigError, match="another key is needed"):
        step(made, supplied=same)
    assert made.contents() == before


def test_a_ca_that_has_expired_is_left_by_way_of_a_rotation(made: Made) -> None:
    made.now = NOW + 3651 * DAY
    with pytest.raises(CertificateError, match="CA 1: has expired at 20"):
        made.renew(everything=True)
    for _ in Phase:
        step(made)
    assert (bundle(made), issuers(made), problems(made)) == ([2], [2, 2], [])


def test_a_ca_whose_key_is_lost_is_left_by_way_of_a_rotation(made: Made) -> None:
    (made.path / "ca" / "1.key").unlink()
    made.now = NOW + 80 * DAY  # leaves are due, too
    for _ in Phase:
        step(made)
    assert (bundle(made), issuers(made), problems(made)) == ([2], [2, 2], [])
