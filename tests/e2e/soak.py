"""Tests with two sizes: a short one that always runs, and a long one under `make soak`."""

from __future__ import annotations

import os

import pytest

SECONDS = float(os.environ.get("SOAK_SECONDS", "3600"))
"""How long the longest of them goes on."""


def soaking(*, short: float, long: float) -> pytest.MarkDecorator:
    """Give the test its size as the argument `much`."""
    patient = [pytest.mark.soak, pytest.mark.timeout(0)]
    return pytest.mark.parametrize(
        "much", [pytest.param(short, id="short"), pytest.param(long, id="long", marks=patient)]
    )
