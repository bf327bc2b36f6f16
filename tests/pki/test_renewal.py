"""When certificates are due."""

from __future__ import annotations

import hashlib

from konnectivity.net.certificate import Certificate
from konnectivity.pki.renewal import JITTER, SHARE, is_due, renew_at

LIFE = 90 * 86400.0
MANY = [
    Certificate(hashlib.sha256(bytes([n])).hexdigest(), 1000.0, 1000.0 + LIFE) for n in range(200)
]


def shares() -> list[float]:
    return [(renew_at(each) - each.not_before) / each.lifetime for each in MANY]


def test_renewal_is_at_two_thirds_of_life_give_or_take_three_days() -> None:
    assert all(abs(share - SHARE) <= JITTER + 1e-9 for share in shares())
    assert JITTER * LIFE == 3 * 86400


def test_certificates_of_one_moment_are_not_due_in_one_moment() -> None:
    assert max(shares()) - min(shares()) > 1.8 * JITTER
    assert abs(sum(shares()) / len(MANY) - SHARE) < JITTER / 5


def test_the_moment_is_the_same_at_each_look() -> None:
    one = MANY[0]
    again = Certificate(one.fingerprint_sha256, one.not_before, one.not_after)
    assert renew_at(one) == renew_at(again)
    assert is_due(one, renew_at(one))
    assert not is_due(one, renew_at(one) - 1)


def test_all_fingerprints_give_a_moment_within_the_bounds() -> None:
    for digits in ("0", "f"):
        share = (renew_at(Certificate(digits * 64, 0.0, LIFE))) / LIFE
        assert abs(share - SHARE) <= JITTER + 1e-9
