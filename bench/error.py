"""The one error of the suite: a line that tells the user what to put right."""

from __future__ import annotations


class BenchError(Exception):
    """The benchmark cannot be run as asked; nothing is left running."""
