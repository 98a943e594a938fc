"""The suggestion of a range test is the steepest fall of its curve."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from equipoise.report.learning_rates import RangeTest


def curve(fall: float, points: int = 100) -> RangeTest:
    """A loss that falls most where the logarithm of the rate is `fall`, between -6 and 0."""
    logarithms = [-6 + 6 * n / (points - 1) for n in range(points)]
    losses = [2 - math.tanh(3 * (x - fall)) for x in logarithms]
    return RangeTest([10**x for x in logarithms], losses)


@given(st.floats(-4.5, -0.5))
def test_the_steepest_fall_is_found(fall: float) -> None:
    found = curve(fall).suggestion()
    assert found is not None
    assert abs(math.log10(found) - fall) <= 6 / 99 + 1e-9


@pytest.mark.parametrize("losses", [[1.0] * 40, [float(n) for n in range(40)], [3.0, 2.0, 1.0]])
def test_a_curve_that_never_falls_or_is_too_short_suggests_nothing(losses: list[float]) -> None:
    found = RangeTest([1.1**n for n in range(len(losses))], losses)
    assert found.suggestion() is None
    assert "suggests none (this run has 1.0e-03)" in found.sentence(1e-3)


def test_the_picture_is_drawn_with_and_without_a_suggestion(tmp_path: Path) -> None:
    for number, found in enumerate((curve(-2), RangeTest([0.1, 0.2], [1.0, 1.0]))):
        picture = found.draw(4e-3, tmp_path / str(number))
        with Image.open(tmp_path / str(number) / picture.file) as image:
            assert image.width > 600
