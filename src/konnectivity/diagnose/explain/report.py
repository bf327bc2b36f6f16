"""Chains for people and for programs. What others have chosen is made harmless here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from konnectivity.diagnose.explain.chain import Chain, State, Verdict
from konnectivity.gotext import one_line

SCHEMA: Final = "konnectivity.explain/v1"
MARKS: Final = {State.WORKS: "✓", State.BROKEN: "✗", State.UNKNOWN: "?", State.NOTE: "·"}
EXIT_STATUS: Final = {Verdict.WHOLE: 0, Verdict.BROKEN: 1, Verdict.UNKNOWN: 3}


def exit_status(chains: Sequence[Chain]) -> int:
    """Of several chains the broken one counts, then the one that cannot be told."""
    verdicts = {each.verdict for each in chains}
    for verdict in (Verdict.BROKEN, Verdict.UNKNOWN):
        if verdict in verdicts:
            return EXIT_STATUS[verdict]
    return EXIT_STATUS[Verdict.WHOLE]


def lines(chains: Sequence[Chain]) -> Iterator[str]:
    """The verdicts, a line each; then each chain as a table."""
    for chain in chains:
        yield one_line(chain.summary)
    for chain in chains:
        yield ""
        if len(chains) > 1:
            yield one_line(chain.callee)
        width = max((len(link.title) for link in chain.links), default=0)
        for link in chain.links:
            yield one_line(f"{MARKS[link.state]} {link.title:{width}}  {link.text}")
            if link.remedy and link.state is not State.WORKS:
                yield one_line(f"  {'':{width}}  do: {link.remedy}")


def document(kind: str, name: str, chains: Sequence[Chain]) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "name": name,
        "exitStatus": exit_status(chains),
        "chains": [
            {
                "callee": chain.callee,
                "verdict": chain.verdict.value,
                "summary": chain.summary,
                "links": [
                    {
                        "title": link.title,
                        "state": link.state.value,
                        "text": link.text,
                        "remedy": link.remedy,
                    }
                    for link in chain.links
                ],
            }
            for chain in chains
        ],
    }
