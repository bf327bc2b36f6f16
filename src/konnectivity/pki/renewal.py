"""When a certificate is replaced: at two thirds of its life, give or take a little.

Pure functions of the certificate and the clock. The little is drawn from the certificate's
fingerprint: the same at each look and on each machine, and different for certificates that were
issued together, so that they are not all renewed in one moment.
"""

from __future__ import annotations

from typing import Final

from konnectivity.net.certificate import Certificate

SHARE: Final = 2 / 3  # of the lifetime
JITTER: Final = 1 / 30  # of the lifetime, either way: three days of ninety
_DIGITS: Final = 8  # of the fingerprint, hexadecimal


def renew_at(certificate: Certificate) -> float:
    """The moment from which on it is due, in Unix seconds."""
    drawn = int(certificate.fingerprint_sha256[:_DIGITS], 16) / (16**_DIGITS - 1)  # 0 to 1
    share = SHARE + JITTER * (2 * drawn - 1)
    return certificate.not_before + share * certificate.lifetime


def is_due(certificate: Certificate, now: float) -> bool:
    """Whether it should be replaced at `now`, in Unix seconds."""
    return now >= renew_at(certificate)
