"""Files that are replaced whole or not at all, on disks that are full too."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.pki.conftest import AGENT, NOW, SERVER, Made, Make

from konnectivity.errors import CertificateError, ConfigError
from konnectivity.pki import files
from konnectivity.pki.authority import Authority
from konnectivity.pki.directory import Directory
from konnectivity.pki.inspection import examine
from konnectivity.pki.issuing import add, initialise, settle
from konnectivity.pki.role import Leaf, Role
from konnectivity.pki.rotation import advance
from konnectivity.pki.state import State

LATE = Leaf("late", Role.AGENT)


@pytest.fixture
def generous() -> Iterator[None]:
    """A umask that would let everybody read."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("generous")
def test_a_key_is_its_owners_alone_before_it_holds_a_byte(tmp_path: Path) -> None:
    with files.aside(tmp_path / "tls.key") as file:
        status = os.fstat(file.fileno())
        assert (status.st_size, status.st_mode & 0o777) == (0, 0o600)
        assert [each.stat().st_mode & 0o777 for each in tmp_path.iterdir()] == [0o600]


@pytest.mark.usefixtures("generous")
def test_the_modes_of_all_files(made: Made) -> None:
    modes = {
        str(each.relative_to(made.path)): each.stat().st_mode & 0o777
        for each in made.path.rglob("*")
    }
    assert {name for name in modes if name.endswith(".key")} == {
        name for name, mode in modes.items() if mode == 0o600
    } - {"lock"}
    assert [modes[name] for name in ("ca", "server", "agent")] == [0o700] * 3


def test_a_file_left_by_a_crash_is_not_in_the_way(tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere"
    secret.write_text("not ours")
    files.aside_path(tmp_path / "tls.key").symlink_to(secret)
    files.put(tmp_path, {"tls.key": b"new"})
    assert (tmp_path / "tls.key").read_bytes() == b"new"
    assert secret.read_text() == "not ours"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_renews_stays_with_the_owner_of_the_folder(made: Made) -> None:
    for path in (made.path / "agent", *(made.path / "agent").iterdir()):
        os.chown(path, 65532, 65532)
    made.renew(everything=True)
    owners = {each.name: each.stat().st_uid for each in (made.path / "agent").iterdir()}
    assert owners == {"tls.crt": 65532, "tls.key": 65532, "ca.crt": 65532}
    assert (made.path / "server" / "tls.key").stat().st_uid == 0


def test_a_second_writer_is_turned_away(made: Made) -> None:
    with (
        made.changing(),
        pytest.raises(CertificateError, match="another command is changing"),
        Directory.changing(made.path),
    ):
        pass
    made.renew()


def test_a_crash_between_key_and_certificate_is_made_good(made: Made) -> None:
    before = made.contents()
    with made.changing() as directory:
        pair = directory.authority(1).issue(AGENT, now=NOW)
    folder = made.path / "agent"
    files.put(folder, {"tls.key": pair.key})
    (folder / ".tls.crt.new").write_bytes(pair.certificate)
    assert made.look(AGENT).problems
    with made.changing():
        pass
    assert not made.look(AGENT).problems
    assert made.contents() == before | {
        "agent/tls.key": pair.key,
        "agent/tls.crt": pair.certificate,
    }


RENEW_FOR_EVER = """
import sys, time
from pathlib import Path
from konnectivity.pki.directory import Directory
from konnectivity.pki.issuing import settle
print(flush=True)
while True:
    with Directory.changing(Path(sys.argv[1])) as directory:
        settle(directory, now=float(sys.argv[2]), tell=lambda _: None, everything=True)
"""


def test_whoever_is_killed_leaves_pairs_that_fit(made: Made) -> None:
    words = [sys.executable, "-c", RENEW_FOR_EVER, str(made.path), str(NOW)]
    for delay in (0.01, 0.013, 0.017, 0.023, 0.031):
        before = made.contents()
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
        with made.changing() as directory:
            assert examine(directory, now=NOW).all_problems == []
        assert set(made.contents()) == set(before)


def test_a_crash_before_the_first_rename_changes_nothing(made: Made) -> None:
    before = made.contents()
    with made.changing() as directory:
        pair = directory.authority(1).issue(AGENT, now=NOW)
    (made.path / "agent" / ".tls.key.new").write_bytes(pair.key)
    (made.path / "agent" / ".tls.crt.new").write_bytes(pair.certificate[:100])
    with made.changing():
        pass
    assert made.contents() == before


# Full disks

Full = Callable[[], AbstractContextManager[None]]


@contextlib.contextmanager
def size_limit() -> Iterator[None]:
    """Files may be made, and not a byte be written to them."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(params=["limit", "tmpfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Full]]:
    """A folder, and what makes its disk full for a while."""
    if request.param == "limit":
        yield tmp_path, size_limit
        return
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root only")

    @contextlib.contextmanager
    def fill() -> Iterator[None]:
        ballast = place / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 1024):
                pass
        try:
            yield
        finally:
            ballast.unlink()

    try:
        yield place, fill
    finally:
        subprocess.run(["umount", str(place)], check=True)


def change_nothing(line: str) -> None:
    raise AssertionError(line)


def test_a_full_disk_leaves_the_certificates_as_they_were(
    disk: tuple[Path, Full], make: Make
) -> None:
    place, full = disk
    made = make(place / "pki")
    before = made.contents()
    for attempt in (
        lambda directory: settle(directory, now=NOW, tell=change_nothing, everything=True),
        lambda directory: add(directory, LATE, now=NOW, tell=change_nothing, replacing=False),
        lambda directory: advance(directory, now=NOW, tell=change_nothing),
    ):
        with full(), made.changing() as directory:
            with pytest.raises(CertificateError, match=r"cannot write .*(space|large)") as caught:
                attempt(directory)
            assert "\n" not in str(caught.value)
        assert made.contents() == before
    assert made.renew(everything=True) == 2
    assert not made.look(SERVER).problems


@pytest.mark.parametrize(
    ("name", "attempt"),
    [
        (
            "server/tls.crt",  # its key was written
            lambda it: settle(it, now=NOW, tell=change_nothing, everything=True),
        ),
        (
            "state.json",  # the leaf, or the new CA, was written
            lambda it: add(it, LATE, now=NOW, tell=change_nothing, replacing=False),
        ),
        ("state.json", lambda it: advance(it, now=NOW, tell=change_nothing)),
    ],
)
def test_what_cannot_be_written_to_the_end_is_as_if_it_had_not_begun(
    made: Made, name: str, attempt: Callable[[Directory], object]
) -> None:
    before = made.contents()
    with made.obstacle(name), made.changing() as directory, pytest.raises(CertificateError):
        attempt(directory)
    assert made.contents() == before


def test_a_full_disk_leaves_nothing_of_a_new_directory(disk: tuple[Path, Full]) -> None:
    place, full = disk
    state, authority = State((SERVER, AGENT)), Authority.create("CA", now=NOW)

    def make(path: Path) -> None:
        initialise(path, state, authority=authority, now=NOW, tell=lambda _: None)

    with full(), pytest.raises(CertificateError, match=r"cannot write|another"):
        make(place / "pki")
    assert not (place / "pki").exists()
    make(place / "pki")


def test_a_directory_of_others_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "tls.key").write_text("not ours")
    with pytest.raises(ConfigError, match="holds server already; an empty directory is needed"):
        initialise(
            tmp_path,
            State((SERVER,)),
            authority=Authority.create("CA", now=NOW),
            now=NOW,
            tell=change_nothing,
        )
    assert [str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*")] == [
        "server",
        "server/tls.key",
    ]
