"""Certificates that follow their files: W51, and what must not be taken over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.net.authority import DAY, NOW, Authority, Identity
from tests.net.test_handshake import meet

from konnectivity.errors import ConfigError
from konnectivity.net import tls
from konnectivity.net.certificate import Certificate
from konnectivity.net.reload import CertificateWatch, Holds, LiveContext, PemFile

pytestmark = pytest.mark.both_loops


class Files:
    """Certificate, key and CA bundle at paths that stay while their content changes."""

    def __init__(self, folder: Path, identity: Identity, authority: Authority) -> None:
        self.cert, self.key, self.ca = (folder / name for name in ("tls.crt", "tls.key", "ca.crt"))
        self.put(identity, authority)

    def put(self, identity: Identity | None = None, authority: Authority | None = None) -> None:
        if identity is not None:
            shutil.copy(identity.cert, self.cert)
            shutil.copy(identity.key, self.key)
        if authority is not None:
            shutil.copy(authority.bundle, self.ca)

    def make(self) -> ssl.SSLContext:
        return tls.server_context(str(self.cert), str(self.key), client_ca=str(self.ca))

    @property
    def list(self) -> tuple[PemFile, ...]:
        return (
            PemFile("cluster-cert", str(self.cert), Holds.CHAIN),
            PemFile("cluster-key", str(self.key), Holds.KEY),
            PemFile("cluster-ca-cert", str(self.ca), Holds.BUNDLE),
        )


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Files:
    return Files(tmp_path, authority.issue("localhost"), authority)


@pytest.fixture
def live(files: Files) -> LiveContext:
    return LiveContext(files.make, files.list)


def fingerprint(path: str | Path) -> str:
    return leaf_of(path).fingerprint_sha256


def leaf_of(path: str | Path) -> Certificate:
    blocks = tls.pem_blocks(Path(path).read_bytes())
    return Certificate.parse(next(der for label, der in blocks if label == b"CERTIFICATE"))


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings, as `message key=value`."""
    return [text for level, text in lines(caplog) if level >= logging.WARNING]


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [
        (
            each.levelno,
            each.getMessage() + "".join(f" {key}={value}" for key, value in each.values.items()),
        )
        for each in caplog.records
        if hasattr(each, "values")
    ]


async def greets(context: ssl.SSLContext, authority: Authority, own: Authority) -> tuple[str, str]:
    """What server and client complain of when a client of `own` trusts `authority`."""
    identity = own.issue("client")
    client = tls.client_context(authority.bundle, cert=identity.cert, key=identity.key)
    server, client_side = await meet(context, client)  # type: ignore[arg-type]
    return server.fault, client_side.fault


# Taking over


async def test_w51_new_files_count_from_the_next_handshake_on(
    files: Files, live: LiveContext, authority: Authority, stranger: Authority
) -> None:
    before = live()
    assert await greets(live(), authority, authority) == ("", "")
    files.put(stranger.issue("localhost"), stranger)
    live.look()
    assert live() is not before
    assert await greets(live(), stranger, stranger) == ("", "")
    # The old CA is refused.
    assert (await greets(live(), stranger, authority))[0] == (
        "the peer's certificate is not signed by a CA of our bundle"
    )


def test_files_that_stay_make_nothing_new(files: Files, live: LiveContext) -> None:
    before, facts = live(), live.certificates
    live.look()
    files.cert.touch()
    files.cert.write_bytes(files.cert.read_bytes())
    live.look()
    assert live() is before
    assert live.certificates == facts


def test_a_change_that_leaves_size_and_time_alike_is_seen(
    files: Files, live: LiveContext, authority: Authority
) -> None:
    # Two CAs' bundles happen to have one size, and a copy may keep the time.
    before = live()
    content = files.ca.read_bytes()
    status = files.ca.stat()
    files.ca.write_bytes(content.replace(b"\n-----END", b" \n-----END", 1)[: len(content)])
    os.utime(files.ca, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert files.ca.stat().st_size == status.st_size
    live.look()
    assert live() is not before


def test_a_mounted_secret_is_followed_when_its_link_is_swapped(
    tmp_path: Path, authority: Authority
) -> None:
    # As the kubelet does it: files are links into ..data, which is a link to a directory.
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        Files(tmp_path / name, authority.issue("localhost"), authority)
    data = tmp_path / "..data"
    data.symlink_to("first")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    cert, key = str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")
    listed = (PemFile("cert", cert, Holds.CHAIN), PemFile("key", key, Holds.KEY))
    live = LiveContext(lambda: tls.server_context(cert, key), listed)
    swapped = tmp_path / "..data_tmp"
    swapped.symlink_to("second")
    swapped.rename(data)
    live.look()
    (facts,) = live.certificates
    assert facts.in_use.fingerprint_sha256 == fingerprint(tmp_path / "second/tls.crt")


def test_what_is_new_is_told(
    files: Files, live: LiveContext, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files.put(authority.issue("localhost"))
    live.look()
    ((_, line),) = lines(caplog)
    assert line.startswith(f"New certificates in use flag=--cluster-cert path={files.cert} ")
    assert fingerprint(files.cert) in line
    assert not complaints(caplog)


def test_a_ca_that_is_taken_out_of_a_bundle_is_told(
    files: Files, authority: Authority, stranger: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files.ca.write_bytes(files.ca.read_bytes() + Path(stranger.bundle).read_bytes())
    live = LiveContext(files.make, files.list)
    files.put(authority=authority)
    caplog.set_level(logging.INFO)
    live.look()
    ((_, line),) = lines(caplog)
    assert line.startswith(f"New certificates in use flag=--cluster-ca-cert path={files.ca} ")


# Facts


def test_in_use_and_on_disk_are_told_apart(
    files: Files, authority: Authority, stranger: Authority
) -> None:
    clock = [NOW.timestamp()]
    live = LiveContext(files.make, files.list, clock=lambda: clock[0])
    old = leaf_of(files.cert)
    cert, ca = live.certificates  # a key has no facts to tell
    assert (cert.name, cert.path) == ("cluster-cert", str(files.cert))
    assert (ca.name, ca.path) == ("cluster-ca-cert", str(files.ca))
    assert cert.in_use == cert.on_disk == old
    assert (cert.loaded_at, cert.error) == (clock[0], "")

    clock[0] += 10
    shutil.copy(stranger.issue("localhost").cert, files.cert)
    live.look()
    cert, ca = live.certificates
    assert (cert.in_use, cert.on_disk) == (old, leaf_of(files.cert))
    assert cert.loaded_at == clock[0] - 10
    assert cert.error == f"key {files.key}: does not belong to certificate {files.cert}"

    files.cert.unlink()
    live.look()
    assert live.certificates[0].on_disk is None

    clock[0] += 10
    files.put(authority.issue("localhost"))
    live.look()
    cert, ca = live.certificates
    assert cert.in_use == cert.on_disk == leaf_of(files.cert)
    assert (cert.loaded_at, cert.error, ca.error) == (clock[0], "", "")


def test_a_chain_is_told_by_its_leaf_and_a_bundle_by_what_lasts_longest(
    tmp_path: Path, authority: Authority
) -> None:
    soon, late, gone = (
        authority.issue("x", not_before=NOW - DAY, not_after=NOW + days * DAY)
        for days in (1, 9, -0.5)
    )
    both = tmp_path / "both.crt"
    both.write_bytes(b"".join(Path(each.cert).read_bytes() for each in (soon, late, gone)))
    for holds, chosen in ((Holds.CHAIN, soon), (Holds.BUNDLE, late)):
        listed = [PemFile("some", str(both), holds)]
        made = LiveContext(lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), listed)
        assert [facts.in_use for facts in made.certificates] == [leaf_of(chosen.cert)]


# What is not taken over


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda files: half(files.cert), "certificate {cert}: no PEM block of a certificate"),
        (lambda files: half(files.key), "key {key}: the private key does not parse"),
        (lambda files: half(files.ca), "CA bundle {ca}: no PEM block of a certificate in it"),
        (lambda files: files.cert.write_text(""), "certificate {cert}: no PEM block"),
        (lambda files: files.key.unlink(), "key {key}: no such file or directory"),
        (lambda files: files.ca.unlink(), "CA bundle {ca}: no such file or directory"),
    ],
)
def test_a_bad_set_leaves_the_old_one_in_use_and_is_logged_once(
    files: Files,
    live: LiveContext,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Files], None],
    says: str,
) -> None:
    before = live()
    good = {path: path.read_bytes() for path in (files.cert, files.key, files.ca)}
    spoil(files)
    for _ in range(3):
        live.look()
    assert live() is before
    (line,) = complaints(caplog)
    assert "New certificates are not used, the old ones stay in use cause=" in line
    assert says.format(cert=files.cert, key=files.key, ca=files.ca) in line
    # What was there before is no news, what is new counts again.
    for path, content in good.items():
        path.write_bytes(content)
    live.look()
    assert live() is before
    assert live.error == ""
    files.put(authority.issue("localhost"))
    live.look()
    assert live() is not before
    assert len(complaints(caplog)) == 1


def test_a_certificate_whose_key_comes_later_waits_for_it(
    files: Files, live: LiveContext, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    before, new = live(), authority.issue("localhost")
    shutil.copy(new.cert, files.cert)
    live.look()
    assert live() is before
    assert len(complaints(caplog)) == 1
    shutil.copy(new.key, files.key)
    live.look()
    assert live.certificates[0].in_use.fingerprint_sha256 == fingerprint(new.cert)
    assert len(complaints(caplog)) == 1


def test_files_that_change_while_they_are_read_are_left_for_the_next_look(
    files: Files, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    new = authority.issue("localhost")
    writing = contextlib.ExitStack()

    def make() -> ssl.SSLContext:
        writing.close()  # what a slow writer does in this very moment
        return files.make()

    live = LiveContext(make, files.list)
    before = live()
    shutil.copy(new.cert, files.cert)
    writing.callback(shutil.copy, new.key, files.key)
    live.look()
    assert live() is before
    live.look()
    assert live() is not before
    assert not complaints(caplog)


def test_an_unreadable_key_is_named(
    files: Files,
    live: LiveContext,
    caplog: pytest.LogCaptureFixture,
    unprivileged: Callable[[], AbstractContextManager[None]],
) -> None:
    files.key.chmod(0)
    files.key.parent.chmod(0o755)
    with unprivileged():
        live.look()
    assert "permission denied" in live.error
    live.look()
    assert live.error == ""
    assert len(complaints(caplog)) == 1


@pytest.mark.parametrize(
    ("issue", "says"),
    [
        (lambda ca: ca.expired("localhost"), "has expired at "),
        (lambda ca: ca.future("localhost"), "is not valid before "),
    ],
)
def test_a_certificate_out_of_its_time_is_not_taken_for_a_valid_one(
    files: Files,
    live: LiveContext,
    authority: Authority,
    issue: Callable[[Authority], Identity],
    says: str,
) -> None:
    before = live()
    files.put(issue(authority))
    live.look()
    assert live() is before
    assert live.error.startswith(f"--cluster-cert: {files.cert}: {says}")
    assert live.error.endswith(", by this machine's clock")


def test_a_certificate_that_begins_later_is_taken_when_its_time_has_come(
    files: Files, authority: Authority
) -> None:
    clock = [NOW.timestamp()]
    live = LiveContext(files.make, files.list, clock=lambda: clock[0])
    before = live()
    files.put(authority.future("localhost"))
    live.look()
    assert live() is before
    clock[0] += 2 * DAY.total_seconds()
    live.look()
    assert live() is not before


def test_with_a_wrong_clock_the_new_certificate_is_as_good_as_the_old_one(
    files: Files, authority: Authority
) -> None:
    # To a clock that begins in 1970 neither is valid yet; peers know better.
    live = LiveContext(files.make, files.list, clock=lambda: 0.0)
    before = live()
    files.put(authority.issue("localhost"))
    live.look()
    assert live() is not before


def test_at_the_start_a_wrong_file_is_an_error_with_its_flags(files: Files) -> None:
    files.key.unlink()
    with pytest.raises(ConfigError) as caught:
        LiveContext(files.make, files.list)
    assert str(caught.value) == (
        "--cluster-cert, --cluster-key, --cluster-ca-cert: "
        f"key {files.key}: no such file or directory"
    )


# What expires


def test_a_certificate_that_expires_is_told_of_at_each_step_once(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    end = NOW + 100 * DAY
    leaf = authority.issue("localhost", not_before=NOW - 265 * DAY, not_after=end)
    files = Files(tmp_path, leaf, authority)
    clock = [NOW.timestamp()]
    live = LiveContext(files.make, files.list, clock=lambda: clock[0])
    told = []
    for left in (100, 15, 13.9, 13, 2, 0.9, 0.1, -0.1, -1):
        clock[0] = end.timestamp() - left * DAY.total_seconds()
        live.look()
        live.look()
        told.append(len(complaints(caplog)))
    assert told == [0, 0, 1, 1, 1, 2, 2, 3, 3]
    first, _, last = complaints(caplog)
    shown = f"{end:%Y-%m-%dT%H:%M:%SZ}"
    assert first == (
        "Put a new certificate in its place, no restart is needed "
        f"flag=--cluster-cert path={files.cert} cause=the one in use expires at {shown}"
    )
    assert f"cause=the one in use has expired at {shown}, by this machine's clock" in last


def test_a_short_life_is_not_told_of_from_its_beginning(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    leaf = authority.issue("localhost", not_before=NOW, not_after=NOW + DAY)
    files = Files(tmp_path, leaf, authority)
    clock = [NOW.timestamp()]
    live = LiveContext(files.make, files.list, clock=lambda: clock[0])
    told = []
    for hours in (0, 12, 17, 19, 21, 23, 25):
        clock[0] = NOW.timestamp() + hours * 3600
        live.look()
        told.append(len(complaints(caplog)))
    assert told == [0, 0, 0, 1, 1, 2, 3]


def test_an_expired_ca_is_told_of_at_the_start(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path, authority.issue("localhost"), authority)
    shutil.copy(authority.expired("old").cert, files.ca)
    LiveContext(files.make, files.list)
    (line,) = complaints(caplog)
    assert "has expired at " in line
    assert f"flag=--cluster-ca-cert path={files.ca}" in line


# The task


async def test_the_watch_looks_until_it_ends(files: Files, authority: Authority) -> None:
    watch = CertificateWatch(0.01)
    context = watch.add(files.make, files.list)
    async with watch:
        before = context()
        files.put(authority.issue("localhost"))
        async with asyncio.timeout(5):
            while context() is before:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)
    assert [each.name for each in watch.certificates] == ["cluster-cert", "cluster-ca-cert"]
    taken = context()
    files.put(authority.issue("localhost"))
    await asyncio.sleep(0.05)
    assert context() is taken


async def test_a_fault_of_one_context_does_not_end_the_watch(
    files: Files, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[int] = []

    def break_later() -> ssl.SSLContext:
        made.append(1)
        if len(made) > 1:
            raise RuntimeError("a fault of ours")
        return files.make()

    watch = CertificateWatch(0.01)
    watch.add(break_later, files.list)
    good = watch.add(files.make, files.list)
    before = good()
    async with watch:
        files.put(authority.issue("localhost"))
        async with asyncio.timeout(5):
            while good() is before or len(made) < 3:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)
    assert "Cannot look after certificates" in caplog.text


def test_a_look_costs_next_to_nothing(live: LiveContext) -> None:
    began = time.process_time()
    for _ in range(100):
        live.look()
    assert time.process_time() - began < 0.2  # 2 ms each, where a tenth is usual
