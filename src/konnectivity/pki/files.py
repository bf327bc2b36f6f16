"""Files that are replaced whole or not at all; a key is its owner's alone from its first byte.

New content is written aside (`.<name>.new`), brought to the disk, and renamed. Of several files
that belong together all lie aside, whole, before the first is renamed; so a full disk changes
nothing, and a crash between two renames is made good by `recover`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from konnectivity.errors import CertificateError, DirectoryBusy

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
PRIVATE_FOLDER: Final = 0o700
LOCK: Final = "lock"


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace files of `folder`, in the order given. Names ending in `.key` are private.

    What root writes belongs to the owner of the folder.

    Raises:
        CertificateError: the disk is full, or something else is in the way; nothing has changed.
    """
    try:
        try:
            for name, content in files.items():
                with aside(folder / name) as file:
                    file.write(content)
        except OSError:
            for each in files:
                with contextlib.suppress(OSError):
                    aside_path(folder / each).unlink()
            raise
        for name in files:
            aside_path(folder / name).replace(folder / name)
        _sync(folder)
    except OSError as error:
        raise refused(folder / name, error) from error


@contextlib.contextmanager
def aside(path: Path) -> Iterator[BinaryIO]:
    """An empty file beside `path`; what was written is on the disk at the end of the block."""
    where = aside_path(path)
    where.unlink(missing_ok=True)  # left by a crash; whoever is at work holds the lock
    mode = PRIVATE if path.suffix == ".key" else PUBLIC
    descriptor = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        if mode == PUBLIC:
            os.fchmod(descriptor, mode)  # whatever the umask; a key never had more than it may
        _give_to_owner_of(path.parent, descriptor)
        yield file
        file.flush()
        os.fsync(descriptor)


def aside_path(path: Path) -> Path:
    """Where the next content of `path` is written."""
    return path.with_name(f".{path.name}.new")


def make_folder(path: Path) -> None:
    """A folder for keys, open to its owner alone; it may be there already.

    Raises:
        CertificateError: it cannot be made.
    """
    try:
        path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    except OSError as error:
        raise refused(path, error) from error


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        CertificateError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: {_cause(error)}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second writer out of `folder` while the block runs.

    Raises:
        DirectoryBusy: there is one already.
        CertificateError: the folder cannot be written to.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise refused(folder / LOCK, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DirectoryBusy(
            f"{folder}: another command is changing these certificates, or a manager; try again"
        ) from None
    finally:
        os.close(descriptor)


def refused(path: Path, error: OSError) -> CertificateError:
    """What to say when a file cannot be written."""
    return CertificateError(f"cannot write {path}: {_cause(error)}; what was there is unchanged")


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _give_to_owner_of(folder: Path, descriptor: int) -> None:
    """So that root can renew the certificates of a program that runs as another user."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sync(folder: Path) -> None:
    """Bring renames to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
