"""What `konnectivity certs` shows of a directory: tables for people, JSON for programs."""

from __future__ import annotations

from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from konnectivity.net.certificate import utc
from konnectivity.pki.directory import Directory
from konnectivity.pki.inspection import Findings, Report
from konnectivity.pki.rotation import Progress
from konnectivity.pki.state import Phase

DAY: Final = 86400.0
_STEPS: Final = list(Phase)


def as_json(
    directory: Directory, findings: Findings, rotation: Progress | None
) -> dict[str, object]:
    """Times are RFC 3339 in UTC; null where a certificate cannot be read."""
    state = directory.state
    return {
        "directory": str(directory.path),
        "authorities": [
            _report_as_json(report)
            | {
                "issues": number == state.signing,
                "trusted": number in state.trusted,
                "key_present": directory.authority_key(number).exists(),
            }
            for number, report in zip(state.known, findings.authorities, strict=True)
        ],
        "leaves": [_report_as_json(report) for report in findings.leaves],
        "rotation": progress_as_json(rotation),
        "problems": findings.all_problems,
    }


def progress_as_json(found: Progress | None) -> dict[str, object] | None:
    """The same for a rotation."""
    if found is None:
        return None
    return {
        "phase": found.phase,
        "complete": found.complete,
        "old": found.old,
        "new": found.new,
        "leaves_of_old": list(found.of_old),
        "leaves_of_new": list(found.of_new),
        "next_at": _time(found.next_at),
        "cluster_lacks": found.missing or None,
    }


def print_tables(
    directory: Directory, findings: Findings, rotation: Progress | None, *, now: float
) -> None:
    """Print all, the problems last."""
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("Name", "Issuer", "Valid until", "Renewal", "Names"):
        table.add_column(title, overflow="fold", no_wrap=title != "Names")
    for number, report in zip(directory.state.known, findings.authorities, strict=True):
        table.add_row(*_cells(report, issuer=_position(directory, number), now=now))
    for report in findings.leaves:
        issuer = f"CA {report.issuer}" if report.issuer else report.issuer_name
        table.add_row(*_cells(report, issuer=issuer, now=now))
    console.print(table)
    if rotation is not None:
        print_progress(rotation)
    for problem in findings.all_problems:
        console.print(Text(problem, style="red"), soft_wrap=True)


def print_progress(found: Progress | None) -> None:
    """Print a line for each phase of a rotation."""
    console = Console()
    if found is None:
        console.print("no rotation of the CA is under way", highlight=False)
        return
    at = _STEPS.index(found.phase)
    for number, phase in enumerate(_STEPS):
        done = number < at or (number == at and found.complete)
        word = "done" if done else "begun" if number == at else "to come"
        line = f"{phase:11} {word:8} {_detail(found, phase)}"
        console.print(Text(line), soft_wrap=True)
    if found.missing:
        console.print(f"the cluster does not have the {found.missing} yet", highlight=False)
    elif found.next_at is not None:
        what = "another rotation" if found.phase is Phase.DROP_OLD else _STEPS[at + 1]
        console.print(f"{what} from {utc(found.next_at)} on", highlight=False)
    else:
        console.print("konnectivity certs rotate --ca goes on", highlight=False)


def _detail(found: Progress, phase: Phase) -> str:
    if phase is Phase.REISSUE:
        total = len(found.of_old) + len(found.of_new)
        left = f", left: {', '.join(found.of_old)}" if found.of_old else ""
        return f"{len(found.of_new)} of {total} certificates of CA {found.new}{left}"
    return f"CA {found.old}" + (f" and CA {found.new}" if phase is Phase.TRUST_BOTH else "")


def _report_as_json(report: Report) -> dict[str, Any]:
    certificate = report.certificate
    begin, end = (certificate.not_before, certificate.not_after) if certificate else (None, None)
    return {
        "name": report.name,
        "role": report.role,
        "subject": report.subject or None,
        "sans": list(report.hosts),
        "issuer": report.issuer_name or None,
        "fingerprint_sha256": certificate and certificate.fingerprint_sha256,
        "not_before": _time(begin),
        "not_after": _time(end),
        "renew_at": _time(report.renew_at),
        "problems": list(report.problems),
    }


def _time(moment: float | None) -> str | None:
    return None if moment is None else utc(moment)


def _position(directory: Directory, number: int) -> str:
    state = directory.state
    if number == state.signing:
        return "issues"
    return "trusted" if number in state.trusted else "dropped"


def _cells(report: Report, *, issuer: str, now: float) -> list[Text]:
    style = "red" if report.problems else ""
    certificate = report.certificate
    role = "" if report.role in ("ca", report.name) else f" ({report.role})"
    texts = [f"{report.name}{role}", issuer]
    if certificate is None or report.renew_at is None:
        texts += ["unreadable", "due"]
    else:
        due = now >= report.renew_at or report.problems
        days = (report.renew_at - now) / DAY
        texts += [
            utc(certificate.not_after).partition("T")[0],
            "due" if due else f"in {days:.0f} days" if days >= 2 else f"in {days * 24:.0f} hours",
        ]
    texts.append(", ".join(report.hosts))
    return [Text(each, style=style) for each in texts]
