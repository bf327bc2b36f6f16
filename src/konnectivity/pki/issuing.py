"""Make the files of a directory what its state says: leaves, bundles, and nothing else.

`settle` is the one way: it can be repeated at any time, and goes on where a crash, a full disk or
a step of a rotation has left off.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from konnectivity.errors import ConfigError
from konnectivity.net.certificate import utc
from konnectivity.pki import files
from konnectivity.pki.authority import Authority, KeyPair, load_certificate
from konnectivity.pki.directory import BUNDLE, KEY, Directory, expect_empty, undo_creation
from konnectivity.pki.inspection import examine_leaf, reason_to_renew
from konnectivity.pki.role import Leaf
from konnectivity.pki.state import State

Tell = Callable[[str], None]
"""Hears, in one line each, of what has been done."""


def new_authority(*, now: float) -> Authority:
    """A CA of our own. Part of its name is drawn, so that two of them differ in a bundle."""
    return Authority.create(f"konnectivity CA {secrets.token_hex(4)}", now=now)


def supplied_authority(certificate: Path, key: Path) -> Authority:
    """A CA from PEM files.

    Raises:
        CertificateError: a file cannot be read.
        ConfigError: they are not those of a CA.
    """
    return Authority(KeyPair(files.read(certificate), files.read(key)), what="supplied CA")


def initialise(
    path: Path, state: State, *, authority: Authority, now: float, tell: Tell
) -> Directory:
    """Make a directory with a CA and all leaves of `state`, or nothing at all.

    Raises:
        ConfigError: the directory is not empty.
        CertificateError: it cannot be written.
    """
    with contextlib.ExitStack() as undo:
        try:
            if not path.exists():
                path.mkdir(parents=True)
                undo.callback(_remove_if_empty, path)
        except OSError as error:
            raise files.refused(path, error) from error
        expect_empty(path)  # before a lock is made among the files of others
        with files.locked(path):
            expect_empty(path)
            undo.callback(undo_creation, path, state)
            directory = Directory.create(path, state, authority)
            settle(directory, now=now, tell=tell)
            undo.pop_all()
    return directory


def settle(
    directory: Directory,
    *,
    now: float,
    tell: Tell,
    everything: bool = False,
    only_of: int | None = None,
) -> int:
    """Renew the leaves that need it, or all of them; put the bundles right; end a phase.

    With `only_of` no other leaves are looked at than those of this CA. Returns how many leaves
    were issued.

    Raises:
        CertificateError: a file cannot be written, or the CA cannot issue; what was done stays,
            the rest is as it was.
        ConfigError: a file of the CA is damaged.
    """
    directory.put_bundles()  # before the leaves: nobody shows what others do not trust yet
    wanted = [
        (leaf, reason)
        for leaf in directory.state.leaves
        if only_of is None or examine_leaf(directory, leaf, now=now).issuer == only_of
        if (reason := _reason(directory, leaf, now=now, everything=everything))
    ]
    if wanted:  # else the key of the CA is not needed
        authority = directory.authority(directory.state.signing)
    for number, (leaf, reason) in enumerate(wanted, start=1):
        end = _issue(directory, leaf, authority=authority, now=now)
        tell(f"{leaf.name}: issued, valid until {end} ({number} of {len(wanted)}; {reason})")
    directory.tidy()
    rotation = directory.state.rotation
    if rotation is not None and not rotation.since:
        directory.save(replace(directory.state, rotation=replace(rotation, since=now)))
    return len(wanted)


def add(directory: Directory, leaf: Leaf, *, now: float, tell: Tell, replacing: bool) -> None:
    """Issue one more leaf, or another in the place of one.

    Raises:
        ConfigError: there is one of this name and `replacing` is not set, or none and it is.
        CertificateError: it cannot be written. The directory is as it was; one that was to be
            replaced is still in place, and `settle` replaces it.
    """
    known = leaf.name in {each.name for each in directory.state.leaves}
    folder = directory.folder(leaf)
    if not replacing and (known or (folder / KEY).exists()):
        raise ConfigError(f"certificate {leaf.name}: there is one already; --replace replaces it")
    if replacing and not known:
        raise ConfigError(f"certificate {leaf.name}: there is none to be replaced")
    authority = directory.authority(directory.state.signing)
    if replacing:
        # The wish first: what is interrupted after it, `settle` finishes.
        directory.save(directory.state.with_leaf(leaf))
        end = _issue(directory, leaf, authority=authority, now=now)
    else:
        try:
            end = _issue(directory, leaf, authority=authority, now=now)
            files.put(folder, {BUNDLE: directory.bundle()})
            directory.save(directory.state.with_leaf(leaf))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    tell(f"{leaf.name}: issued, valid until {end}")


def _reason(directory: Directory, leaf: Leaf, *, now: float, everything: bool) -> str:
    return reason_to_renew(directory, leaf, now=now) or ("asked for" if everything else "")


def _issue(directory: Directory, leaf: Leaf, *, authority: Authority, now: float) -> str:
    """Issue and write one leaf; the end of its validity, for people."""
    pair = authority.issue(leaf, now=now, lifetime=directory.state.lifetime)
    directory.put_leaf(leaf, pair)
    certificate = load_certificate(pair.certificate, what=leaf.name)
    return utc(certificate.not_valid_after_utc.timestamp())


def _remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()
