"""The pages `docs/checks/KNCxxx.md`, their heads from the catalogue, their text by hand.

`python -m konnectivity.cli.checks_reference` writes the heads anew and keeps what is below them;
a check that has no page gets one with empty sections.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from konnectivity.diagnose.catalogue import CHECKS, NOT_CHECKED
from konnectivity.diagnose.check import Check, Severity

FOLDER: Final = Path("docs/checks")
FENCE: Final = "<!-- Above: from the catalogue, by `make reference`. Below: by hand. -->"
SECTIONS: Final = f"{FENCE}\n\n## Cause\n\n## Remedy\n"
INDEX: Final = """\
# Checks

What [`konnectivity doctor`](../reference/doctor.md) looks at, in the order of asking: causes before
symptoms. A finding that an earlier one explains is not told again; the later check is then
*skipped, blocked by* the earlier code. Codes are stable: one that is retired is never used again.

| Code | Checks that | Layer | Severity | Explained by |
|---|---|---|---|---|
"""
UNCHECKED: Final = """
## Not checked

These codes are reserved. `doctor` does not check them; another command tells.

| Code | About | What tells it |
|---|---|---|
"""


def index() -> str:
    """The page `docs/checks/README.md`."""
    rows = [
        f"| [{each.code}]({each.code}.md) | {each.title} | {each.layer} | {_severity(each)} "
        f"| {_codes(each)} |\n"
        for each in CHECKS
    ]
    reserved = [
        f"| {code} | {about} | {instead} |\n" for code, (about, instead) in NOT_CHECKED.items()
    ]
    return INDEX + "".join(rows) + UNCHECKED + "".join(reserved)


def page(check: Check, known: str) -> str:
    """The page of a check, with what `known`, the page as it is, has below the fence."""
    _, fence, text = known.partition(FENCE)
    return f"{_head(check)}\n{fence}{text}" if fence else f"{_head(check)}\n{SECTIONS}"


def _head(check: Check) -> str:
    rows = {
        "Layer": check.layer.value,
        "Severity": _severity(check),
        "Judged from": " or ".join(check.needs),
        "Explained by": _codes(check) or "nothing",
    }
    lines = [f"# {check.code}: {check.title}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([*lines, "", "All checks: [the catalogue](README.md).", ""])


def _severity(check: Check) -> str:
    return "warning" if check.severity is Severity.WARNING else "error"


def _codes(check: Check) -> str:
    return ", ".join(f"[{code}]({code}.md)" for code in check.blocked_by)


def pages(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file of `folder` and what is to be in it."""
    yield folder / "README.md", index()
    for check in CHECKS:
        path = folder / f"{check.code}.md"
        yield path, page(check, path.read_text() if path.exists() else "")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in pages(FOLDER):
        path.write_text(text)
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
