"""Sinusoidal positions."""

from __future__ import annotations

import math

import pytest
import torch

from equipoise.nn import SinusoidalPositions


def test_rows_run_from_the_farthest_to_distance_zero() -> None:
    rows = SinusoidalPositions(6).double()(4)
    for row, distance in zip(rows, (3, 2, 1, 0), strict=True):
        angles = [distance * 10000 ** (-2 * i / 6) for i in range(3)]
        expected = [*map(math.sin, angles), *map(math.cos, angles)]
        torch.testing.assert_close(row.tolist(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [0, 7])
def test_an_odd_width_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match="even width"):
        SinusoidalPositions(width)
