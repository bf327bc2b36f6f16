"""A CA bundle as it is given: PEM text, or `@` and the path of a file with it."""

from __future__ import annotations

import ssl
from pathlib import Path

from konnectivity.flag import Kind


def read(text: str, directory: str = "") -> str:
    """The PEM text; a relative path starts in `directory`.

    Raises:
        ValueError: the file cannot be read.
    """
    if not text.startswith("@"):
        return text
    path = Path(directory, text[1:])
    try:
        return path.read_text()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: it is not PEM text") from None


def problem(pem: str) -> str:
    """What is wrong with a CA bundle, or nothing."""
    if "PRIVATE KEY-----" in pem:
        return "holds a private key; only certificates belong there"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        return "is not a PEM text with certificates"
    return ""


PEM = Kind("string", read, lambda pem: f'"{pem.count("-----BEGIN")} certificates"' if pem else '""')
