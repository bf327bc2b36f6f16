"""`konnectivity bundle`: a support archive of everything that may be of use, without secrets.

Exit statuses: 0 the archive is there, 1 it is there and only this machine told anything, or it
could not be written, 2 misused.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from konnectivity.cli import look
from konnectivity.cli.run import FAILED, OK, Description, complain
from konnectivity.diagnose.bundle import parts
from konnectivity.diagnose.bundle.archive import Archive, Part, stamp
from konnectivity.diagnose.bundle.redaction import RULES, Redactor
from konnectivity.diagnose.sources import SourceOptions, Sources
from konnectivity.diagnose.wording import clean
from konnectivity.flag import flag
from konnectivity.gotext import quote

COMMAND: Final = Description(
    name="konnectivity bundle",
    about=(
        "Write a support archive (zip): status, doctor's findings, configuration, logs, metrics, "
        "objects, policies, certificates. Secrets are masked; look into it before you hand it on. "
        "It asks servers and cluster, never the tunnel, and changes nothing. Whatever does not "
        "answer is left out, and the index says why."
    ),
    examples=(
        "{command} --server=http://10.0.0.11:8095,http://10.0.0.12:8095 --kubeconfig=admin.conf",
        "",
        "# for a public issue tracker",
        "{command} --mask-addresses --without=logs,tunnels,dials",
    ),
)
SMALLEST: Final = 1 << 20
LARGEST: Final = 1 << 30
"""Bytes; the archive is made in memory."""
MARKS: Final = {"ok": "✓", "partial": "!", "failed": "✗", "left out": "-"}
MOST_REASONS: Final = 5


@dataclass(frozen=True)
class BundleOptions(SourceOptions):
    """All flags of the command."""

    flags_title: ClassVar[str] = "Flags"

    file: str = flag("", "Where to write; empty: konnectivity-<time>.zip here.", short="f")
    without: tuple[str, ...] = flag((), f"Parts to leave out, of {', '.join(parts.NAMES)}.")
    mask_addresses: bool = flag(
        False, "Mask IP addresses, too. The same address has the same mask in all files."
    )
    max_size: int = flag(32 << 20, "Bytes of the archive at most; what is too much is left out.")
    interval: float = flag(5.0, "Time between the two looks at the metrics.")


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    return look.run(COMMAND, BundleOptions, argv, _start, check=lambda it: list(_problems(it)))


def _problems(options: BundleOptions) -> Iterator[str]:
    for name in options.without:
        if name not in parts.NAMES:
            yield f"without: {quote(name)} is none of {', '.join(parts.NAMES)}"
    if not SMALLEST <= options.max_size <= LARGEST:
        yield f"max-size must be {SMALLEST} to {LARGEST} bytes"
    if options.interval < 0:
        yield "interval must be >= 0s"


def _start(options: BundleOptions, sources: Sources) -> int:
    now = time.time()
    path = Path(options.file or f"konnectivity-{stamp(now)}.zip")
    if path.exists():
        return complain(f"{path} exists; name another with --file", status=FAILED)
    redactor = Redactor(
        known={each.token for each in sources.servers}, addresses=options.mask_addresses
    )
    archive = Archive(redactor, max_size=options.max_size)
    facts = asyncio.run(
        parts.fill(
            archive,
            options,
            sources,
            environ=os.environ,
            interval=options.interval,
            without=frozenset(options.without),
            masks_addresses=options.mask_addresses,
            tell=_progress,
        )
    )
    content = archive.close(created_at=now)
    try:
        _write(path, content)
    except OSError as error:
        return complain(f"cannot write {path}: {error.strerror}", status=FAILED)
    _sum_up(path, len(content), redactor)
    return OK if parts.any_answer(facts) else FAILED


def _progress(part: Part) -> None:
    """A line for each part, and why something of it is missing."""
    files = f"{len(part.files)} file{'' if len(part.files) == 1 else 's'}"
    told = part.result if part.left_out else f"{files}, {sum(part.files.values())} bytes"
    sys.stderr.write(f"{MARKS[part.result]} {part.name:14} {told}\n")
    for each in part.missing[:MOST_REASONS]:
        sys.stderr.write(f"    {clean(each.what, 100)}: {clean(each.reason, 200)}\n")
    if len(part.missing) > MOST_REASONS:
        sys.stderr.write(f"    and {len(part.missing) - MOST_REASONS} more; see index.json\n")
    sys.stderr.flush()


def _write(path: Path, content: bytes) -> None:
    """For its owner's eyes; never over something, never half."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(content)
    except OSError:
        path.unlink()
        raise


def _sum_up(path: Path, size: int, redactor: Redactor) -> None:
    found = [f"{count} {name}" for name, count in redactor.counts.items() if name in RULES]
    sys.stdout.write(f"{path}: {size} bytes\n")
    sys.stdout.write(f"masked: {', '.join(found) or 'nothing'}; index.json says what is meant\n")
