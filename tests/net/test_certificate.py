"""What is read from certificates, compared with a library that reads all of them."""

from __future__ import annotations

import datetime
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from konnectivity.net.certificate import Certificate, utc

KEY = ec.generate_private_key(ec.SECP256R1())
YEAR = datetime.timedelta(days=365)


def issue(begin: datetime.datetime, end: datetime.datetime, name: str = "node") -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), 7, begin, end)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


SAMPLE = issue(datetime.datetime(2026, 1, 2, 3, 4, 5), datetime.datetime(2027, 1, 2, 3, 4, 5))

moments = st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(9999, 12, 31)).map(
    lambda moment: moment.replace(microsecond=0)
)


@given(moments, moments, st.text(st.characters(codec="utf-8"), min_size=1, max_size=64))
@example(datetime.datetime(1999, 12, 31, 23, 59, 59), datetime.datetime(2000, 1, 1), "old")
@example(datetime.datetime(2049, 12, 31, 23, 59, 59), datetime.datetime(2050, 1, 1), "far")
@example(datetime.datetime(1950, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59), "for ever")
def test_the_facts_are_those_that_a_library_finds(
    one: datetime.datetime, other: datetime.datetime, name: str
) -> None:
    der = issue(min(one, other), max(one, other), name)
    theirs = x509.load_der_x509_certificate(der)
    ours = Certificate.parse(der)
    assert ours.not_before == theirs.not_valid_before_utc.timestamp()
    assert ours.not_after == theirs.not_valid_after_utc.timestamp()
    assert ours.fingerprint_sha256 == theirs.fingerprint(hashes.SHA256()).hex()
    assert ours.lifetime == ours.not_after - ours.not_before


def test_a_certificate_of_the_first_version_is_read() -> None:
    # Without version and extensions; only the head matters, so the rest is cut off.
    def element(tag: int, content: bytes) -> bytes:
        return bytes([tag, len(content)]) + content

    validity = element(0x17, b"260102030405Z") + element(0x18, b"20500102030405Z")
    fields = element(2, b"\7") + element(0x30, b"") + element(0x30, b"") + element(0x30, validity)
    der = element(0x30, element(0x30, fields))
    certificate = Certificate.parse(der)
    assert utc(certificate.not_before) == "2026-01-02T03:04:05Z"
    assert utc(certificate.not_after) == "2050-01-02T03:04:05Z"
    assert certificate.fingerprint_sha256 == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("size", range(len(SAMPLE)))
def test_a_part_of_a_certificate_is_none(size: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        Certificate.parse(SAMPLE[:size])


def test_what_follows_a_certificate_makes_it_none() -> None:
    with pytest.raises(ValueError, match=r"."):
        Certificate.parse(SAMPLE + SAMPLE)


@pytest.mark.parametrize(
    "moment",
    [b"260102030405+", b"260102030460Z", b"261302030405Z", b"260230030405Z", b"26010203040\xb2Z"],
)
def test_a_time_in_another_form_is_refused(moment: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Certificate.parse(SAMPLE.replace(b"260102030405Z", moment))


@given(st.binary(max_size=80) | st.integers(1, 200).map(lambda at: SAMPLE[at:]))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Certificate.parse(data)


@given(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255))
def test_one_wrong_byte_does_no_harm(at: int, change: int) -> None:
    broken = SAMPLE[:at] + bytes([SAMPLE[at] ^ change]) + SAMPLE[at + 1 :]
    try:
        assert Certificate.parse(broken) != Certificate.parse(SAMPLE)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either is right


def test_a_certificate_is_valid_from_its_first_to_its_last_second() -> None:
    certificate = Certificate.parse(SAMPLE)
    begin, end = certificate.not_before, certificate.not_after
    assert certificate.fault_at(begin - 1) == "is not valid before 2026-01-02T03:04:05Z"
    assert certificate.fault_at(begin) == certificate.fault_at(end) == ""
    assert certificate.fault_at(end + 1) == "has expired at 2027-01-02T03:04:05Z"
