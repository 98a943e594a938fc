"""The pictures of an ensemble, looked at by their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equipoise.report.plot import COLOURS
from equipoise.report.submissions import draw_correlation, draw_dropped, draw_weights

GENERATOR = np.random.default_rng(0)

FIRST, SECOND = (tuple(bytes.fromhex(colour[1:])) for colour in COLOURS[:2])


def pixels(file: Path) -> np.ndarray:
    """The picture (height, width, 3)."""
    return np.asarray(Image.open(file).convert("RGB"))


def names(count: int) -> list[str]:
    return [f"runs/a_rather_long_folder_name/{number}/$1" for number in range(count)]


def test_weights_of_all_types_are_bars_of_those_that_have_one(tmp_path: Path) -> None:
    weights = np.zeros(60)
    weights[[3, 9]] = 0.75, 0.25
    picture = draw_weights(names(60), {"weight": weights}, tmp_path / "weights.png")
    assert picture.file == "weights.png"
    assert "2 of 60" in picture.caption
    drawn = pixels(tmp_path / "weights.png")
    blue = (drawn == FIRST).all(axis=2)
    lengths = np.unique(blue.sum(axis=1)[blue.any(axis=1)])
    assert lengths[-1] == pytest.approx(3 * lengths[0], rel=0.05)


@pytest.mark.parametrize("submissions", [2, 60])
def test_weights_of_each_type_are_a_table(tmp_path: Path, submissions: int) -> None:
    weights = dict(zip(("1JHC", "3JHN"), GENERATOR.dirichlet(np.ones(submissions), 2), strict=True))
    picture = draw_weights(names(submissions), weights, tmp_path / "weights.png")
    assert f"{min(submissions, 25)} of {submissions}" in picture.caption
    assert len(np.unique(pixels(tmp_path / "weights.png").reshape(-1, 3), axis=0)) > 4


@pytest.mark.parametrize("submissions", [2, 41])
def test_correlation_is_red_where_it_is_1_and_blue_where_it_is_opposite(
    tmp_path: Path, submissions: int
) -> None:
    correlation = np.full((submissions, submissions), -1.0)
    np.fill_diagonal(correlation, 1)
    draw_correlation(names(submissions), correlation, tmp_path / "correlation.png")
    drawn = pixels(tmp_path / "correlation.png").reshape(-1, 3)
    red, blue = (int((drawn == colour).all(axis=1).sum()) for colour in ((103, 0, 31), (5, 48, 97)))
    assert blue / red == pytest.approx(submissions - 1, rel=0.15)


def test_the_curves_without_the_best(tmp_path: Path) -> None:
    rows = [
        {"dropped": dropped, "best_single": -3 + dropped, "ensemble": -4 + dropped}
        for dropped in (0, 1, 5, 10)
    ]
    draw_dropped(rows, tmp_path / "drop_best.png")
    drawn = pixels(tmp_path / "drop_best.png").reshape(-1, 3)
    assert all((drawn == colour).all(axis=1).any() for colour in (FIRST, SECOND))
    draw_dropped(rows[:1], tmp_path / "alone.png")
    assert pixels(tmp_path / "alone.png").std() > 0
