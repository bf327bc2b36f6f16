"""A directory of certificates, and where in it each file lies.

    state.json             what the directory is meant to hold, and the phase of a rotation
    cluster.json           what of it a cluster has, by its manager (following.py)
    ca.crt                 the bundle: the CAs that are trusted now
    ca/1.crt ca/1.key      CA number 1; no program needs this folder
    <leaf>/tls.crt tls.key ca.crt
                           all that one program needs, under the names of Kubernetes' Secrets
    lock                   held by whoever writes

Whoever changes files does so within `Directory.changing`; to read them no lock is needed.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from konnectivity.errors import CertificateError, ConfigError
from konnectivity.pki import files
from konnectivity.pki.authority import Authority, KeyPair, fits, load_certificate, load_key
from konnectivity.pki.role import Leaf
from konnectivity.pki.state import State, decode, encode

STATE: Final = "state.json"
BUNDLE: Final = "ca.crt"
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
AUTHORITIES: Final = "ca"
_AUTHORITY_FILE: Final = re.compile(r"([0-9]+)\.(crt|key)")
_OF_THE_SYSTEM: Final = frozenset([files.LOCK, "lost+found"])


class Directory:
    """One directory with its state as it was when it was opened, or saved last.

    Raises:
        ConfigError: there are no certificates of ours, or the state is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = (path / STATE).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(
                f"{path}: there are no certificates here; konnectivity certs init makes them"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"{path / STATE}: {(error.strerror or str(error)).lower()}"
            ) from error
        self.state = decode(content, path=str(path / STATE))

    @classmethod
    @contextlib.contextmanager
    def changing(cls, path: Path) -> Iterator[Self]:
        """The directory, for one writer; what a crash has left half done is made good first.

        Raises:
            ConfigError: as without.
            DirectoryBusy: somebody else is changing it.
        """
        cls(path)  # so that a wrong path is told of, and gets no lock
        with files.locked(path):
            directory = cls(path)
            for leaf in directory.state.leaves:
                _finish(directory.folder(leaf))
            yield directory

    @classmethod
    def create(cls, path: Path, state: State, authority: Authority) -> Self:
        """A new directory with a CA, and no leaf's files yet. The caller has the lock.

        Raises:
            CertificateError: it cannot be written; `undo_creation` removes what was.
        """
        files.make_folder(path / AUTHORITIES)
        put_authority(path, state.authority, authority.pair)
        files.put(path, {STATE: encode(state)})
        return cls(path)

    def folder(self, leaf: Leaf) -> Path:
        return self.path / leaf.name

    def authority(self, number: int) -> Authority:
        """A CA with its key.

        Raises:
            CertificateError: its key is not here, or a file cannot be read.
            ConfigError: a file is damaged.
        """
        certificate, key = self._authority_files(number)
        if not key.exists():
            raise CertificateError(f"{key}: the key of the CA is not here, so it cannot issue")
        return Authority(KeyPair(files.read(certificate), files.read(key)), what=f"CA {number}")

    def authority_key(self, number: int) -> Path:
        return self._authority_files(number)[1]

    def authority_certificate(self, number: int) -> bytes:
        """The certificate of a CA, PEM.

        Raises:
            CertificateError: it cannot be read.
        """
        return files.read(self._authority_files(number)[0])

    def bundle(self) -> bytes:
        """The CAs that are trusted now, one after the other."""
        return b"".join(self.authority_certificate(each) for each in self.state.trusted)

    def bundle_paths(self) -> list[Path]:
        """Every file that holds them."""
        return [self.path / BUNDLE, *(self.folder(each) / BUNDLE for each in self.state.leaves)]

    def put_bundles(self) -> None:
        """Make all of them what they should be.

        Raises:
            CertificateError: one cannot be written; those before it are new.
        """
        wanted = self.bundle()
        for path in self.bundle_paths():
            if path.parent != self.path:
                files.make_folder(path.parent)
            if not path.is_file() or files.read(path) != wanted:
                files.put(path.parent, {path.name: wanted})

    def put_leaf(self, leaf: Leaf, pair: KeyPair) -> None:
        """Replace certificate and key of a leaf, together.

        Raises:
            CertificateError: they cannot be written; those before are in place.
        """
        files.make_folder(self.folder(leaf))
        # The key first: what is renamed last says that the new pair is whole.
        files.put(self.folder(leaf), {KEY: pair.key, CERTIFICATE: pair.certificate})

    def save(self, state: State) -> None:
        """Make this the state, here and on the disk.

        Raises:
            CertificateError: it cannot be written; the state is the one before.
        """
        files.put(self.path, {STATE: encode(state)})
        self.state = state

    def tidy(self) -> None:
        """Delete what is left of CAs that no step forth or back needs.

        Raises:
            CertificateError: it cannot be deleted.
        """
        for path in sorted((self.path / AUTHORITIES).iterdir()):
            found = _AUTHORITY_FILE.fullmatch(path.name)
            if found:
                kept = self.state.trusted if found[2] == "key" else self.state.known
                if int(found[1]) not in kept:
                    try:
                        path.unlink()
                    except OSError as error:
                        raise files.refused(path, error) from error

    def _authority_files(self, number: int) -> tuple[Path, Path]:
        folder = self.path / AUTHORITIES
        return folder / f"{number}.crt", folder / f"{number}.key"


def put_authority(path: Path, number: int, pair: KeyPair) -> None:
    """Write certificate and key of a CA.

    Raises:
        CertificateError: they cannot be written.
    """
    names = (f"{number}.key", f"{number}.crt")
    files.put(path / AUTHORITIES, dict(zip(names, (pair.key, pair.certificate), strict=True)))


def expect_empty(path: Path) -> None:
    """Make sure that no file of others lies where ours would.

    Raises:
        ConfigError: one does.
    """
    found = sorted({each.name for each in path.iterdir()} - _OF_THE_SYSTEM)
    if found:
        raise ConfigError(f"{path}: holds {found[0]} already; an empty directory is needed")


def undo_creation(path: Path, state: State) -> None:
    """Delete what `create` and the first leaves have written."""
    for name in (AUTHORITIES, *(leaf.name for leaf in state.leaves)):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in (STATE, BUNDLE, files.LOCK):
        with contextlib.suppress(OSError):
            (path / name).unlink()


def _finish(folder: Path) -> None:
    """Make good a crash between the renames of key and certificate; drop other leftovers."""
    new = files.aside_path(folder / CERTIFICATE)
    with contextlib.suppress(OSError, ConfigError):
        key = load_key((folder / KEY).read_bytes(), what="key")
        if fits(load_certificate(new.read_bytes(), what="certificate"), key):
            new.replace(folder / CERTIFICATE)
    for name in (CERTIFICATE, KEY, BUNDLE):
        with contextlib.suppress(OSError):
            files.aside_path(folder / name).unlink()
