"""From one CA to another without a gap, in three phases that each end with a look around.

    trust-both   the new CA is in all bundles; the old one still issues
    reissue      all leaves are issued anew by the new one
    drop-old     the old one is in no bundle any more

Each phase begins with the state on the disk, so that one that was interrupted goes on. The next
one begins when the one before has lasted a while: programs elsewhere must have taken it over.
Where a manager brings the files to a cluster, the while begins when it has done so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from konnectivity.errors import CertificateError, ConfigError
from konnectivity.net.certificate import utc
from konnectivity.pki.authority import Authority, load_certificate
from konnectivity.pki.directory import Directory, put_authority
from konnectivity.pki.following import expect_followed, lag
from konnectivity.pki.inspection import examine_leaf
from konnectivity.pki.issuing import Tell, new_authority, settle
from konnectivity.pki.state import Phase, Rotation

AFTER: Final = 120.0
"""Seconds that a phase lasts at least: kubelets bring new Secrets to pods within one and a half
minutes, and our programs look at their files every ten seconds."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rotation has come. `next_at` is in Unix seconds, None while a phase is at work.

    While the cluster lacks something it is not yet known, and means the earliest moment.
    """

    phase: Phase
    complete: bool
    old: int
    new: int
    of_old: tuple[str, ...]
    of_new: tuple[str, ...]
    next_at: float | None
    missing: str = ""
    """What the cluster lacks that a manager brings the files to."""


def progress(directory: Directory, *, now: float, after: float = AFTER) -> Progress | None:
    """How far the last rotation has come; None if there was none, or it was taken back.

    Raises:
        CertificateError: a file cannot be read.
    """
    rotation = directory.state.rotation
    if rotation is None:
        return None
    missing, since = lag(directory, now=now)
    return Progress(
        phase=rotation.phase,
        complete=bool(rotation.since),
        old=rotation.old,
        new=rotation.new,
        of_old=tuple(_leaves_of(directory, rotation.old, now=now)),
        of_new=tuple(_leaves_of(directory, rotation.new, now=now)),
        next_at=max(rotation.since, since) + after if rotation.since else None,
        missing=missing,
    )


def advance(
    directory: Directory,
    *,
    now: float,
    tell: Tell,
    after: float = AFTER,
    supplied: Authority | None = None,
) -> Phase:
    """Finish the phase that was interrupted, or begin and finish the next one.

    `supplied` is the new CA at the beginning of a rotation, instead of one of our own.

    Raises:
        CertificateError: it is too early, a leaf of the old CA is in use, a cluster has not
            followed, or a file cannot be written; then the same call goes on.
        ConfigError: a CA was supplied, and this is not the beginning.
    """
    rotation = directory.state.rotation
    begins = rotation is None or (rotation.phase is Phase.DROP_OLD and bool(rotation.since))
    if supplied is not None and not begins:
        raise ConfigError("a new CA can be supplied only when a rotation begins; one is under way")
    if rotation is not None and rotation.since:
        _expect_time(rotation, now=now, after=after)
    if begins:
        return _begin(directory, supplied or new_authority(now=now), now=now, tell=tell)
    assert rotation is not None  # noqa: S101 - else this would be the beginning
    if rotation.since:
        expect_followed(directory, now=now, after=after)
        _take_step(directory, rotation, now=now)
    return _finish(directory, now=now, tell=tell)


def roll_back(
    directory: Directory, *, now: float, tell: Tell, after: float = AFTER
) -> Phase | None:
    """Return to the phase before; None when that is the time before the rotation.

    Back from `reissue` all leaves are issued by the old CA again, which everybody still trusts.

    Raises:
        ConfigError: there is no rotation.
        CertificateError: as for `advance`.
    """
    rotation = directory.state.rotation
    if rotation is None:
        raise ConfigError("there is no rotation of the CA to be rolled back")
    if rotation.phase is Phase.TRUST_BOTH:
        if rotation.issued:
            _expect_all_of(directory, rotation.old, now=now)
            if not rotation.since:  # those of the new CA have been in use until just now
                raise CertificateError(
                    "the way back to trust-both was interrupted; konnectivity certs rotate "
                    "finishes it"
                )
            _expect_time(rotation, now=now, after=after)
            expect_followed(directory, now=now, after=after)
        directory.save(replace(directory.state, authority=rotation.old, rotation=None))
        settle(directory, now=now, tell=tell)
        tell(f"CA {rotation.new} is forgotten, CA {rotation.old} is trusted and issues")
        return None
    before = Phase.TRUST_BOTH if rotation.phase is Phase.REISSUE else Phase.REISSUE
    if before is Phase.TRUST_BOTH:
        directory.authority(rotation.old)  # it must still be able to issue
    _save(directory, replace(rotation, phase=before, since=0.0))
    return _finish(directory, now=now, tell=tell)


def _begin(directory: Directory, authority: Authority, *, now: float, tell: Tell) -> Phase:
    old = directory.state.signing
    new = max(directory.state.known) + 1
    present = load_certificate(directory.authority_certificate(old), what=f"CA {old} certificate")
    if authority.certificate.public_key() == present.public_key():
        raise ConfigError("the supplied CA has the key of the one in use; another key is needed")
    put_authority(directory.path, new, authority.pair)
    try:
        _save(directory, Rotation(Phase.TRUST_BOTH, old=old, new=new))
    except CertificateError:
        directory.tidy()
        raise
    return _finish(directory, now=now, tell=tell)


def _take_step(directory: Directory, rotation: Rotation, *, now: float) -> None:
    if rotation.phase is Phase.TRUST_BOTH:
        directory.authority(rotation.new)  # it must be able to issue
        _save(directory, replace(rotation, phase=Phase.REISSUE, since=0.0, issued=True))
    else:
        _expect_all_of(directory, rotation.new, now=now)
        _save(directory, replace(rotation, phase=Phase.DROP_OLD, since=0.0))


def _finish(directory: Directory, *, now: float, tell: Tell) -> Phase:
    rotation = directory.state.rotation
    assert rotation is not None  # noqa: S101 - only roll_back ends one
    # An old CA that is lost or has expired must not be in the way of a new one: it need not issue
    # here, unless this is the way back.
    only_of = rotation.new if rotation.phase is Phase.TRUST_BOTH else None
    settle(directory, now=now, tell=tell, only_of=only_of)
    tell(f"phase {rotation.phase} is complete: {_MEANING[rotation.phase].format(rotation)}")
    return rotation.phase


_MEANING: Final = {
    Phase.TRUST_BOTH: "CA {0.old} and CA {0.new} are trusted, CA {0.old} issues",
    Phase.REISSUE: "CA {0.old} and CA {0.new} are trusted, all certificates are of CA {0.new}",
    Phase.DROP_OLD: "CA {0.new} is trusted and issues, CA {0.old} is not trusted any more",
}


def _save(directory: Directory, rotation: Rotation) -> None:
    directory.save(replace(directory.state, rotation=rotation))


def _expect_time(rotation: Rotation, *, now: float, after: float) -> None:
    until = rotation.since + after
    if now < until:
        raise CertificateError(
            f"phase {rotation.phase} ended at {utc(rotation.since)}; the next step is possible "
            f"from {utc(until)} on, when programs have taken over its files (--after changes that)"
        )


def _expect_all_of(directory: Directory, number: int, *, now: float) -> None:
    """Make sure that no leaf needs another CA than this one."""
    fine = set(_leaves_of(directory, number, now=now))
    left = [leaf.name for leaf in directory.state.leaves if leaf.name not in fine]
    if left:
        raise CertificateError(
            f"the other CA cannot be dropped: CA {number} has not issued {', '.join(left)}; "
            "konnectivity certs rotate issues what the present phase wants"
        )


def _leaves_of(directory: Directory, number: int, *, now: float) -> Iterator[str]:
    """The names of the leaves that a CA has issued."""
    for leaf in directory.state.leaves:
        if examine_leaf(directory, leaf, now=now).issuer == number:
            yield leaf.name
