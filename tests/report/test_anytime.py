"""The table and the picture of an anytime curve."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from equipoise.report import anytime as budget_plot
from equipoise.report.anytime import BudgetPlot, Point, draw, line, shown_metric, write_table


def point(start: str, budget: int, accuracy: float, residual: float | None) -> Point:
    metrics = {"accuracy": accuracy, "loss": 1 - accuracy}
    other = None if start == "zero" else 0.9
    return Point(start, budget, metrics, float(budget), residual, residual, other, other, 1.25)


POINTS = [
    point("zero", 4, 0.5, 1e-1),
    point("random", 4, 0.3, None),
    point("zero", 8, 0.6, 0.0),
    point("random", 8, 0.6, 1e-3),
]


def test_the_table_has_a_row_for_each_point(tmp_path: Path) -> None:
    write_table(POINTS[:1], tmp_path / "anytime.csv")
    write_table(POINTS, tmp_path / "anytime.csv")
    with (tmp_path / "anytime.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["start"], int(row["budget"])) for row in rows] == [
        ("zero", 4), ("random", 4), ("zero", 8), ("random", 8),
    ]  # fmt: skip
    assert [float(row["accuracy"]) for row in rows] == [0.5, 0.3, 0.6, 0.6]
    assert (rows[0]["alignment"], rows[1]["alignment"]) == ("", "0.9")
    assert rows[1]["residual_median"] == ""


def test_the_picture_is_drawn_where_the_page_looks_for_it(tmp_path: Path) -> None:
    picture = draw(POINTS, "accuracy", "relative", tmp_path / "report")
    assert (tmp_path / "report" / picture.file).read_bytes().startswith(b"\x89PNG")
    assert len(picture.caption) > 20


@pytest.mark.parametrize(
    ("monitored", "expected"),
    [("val/miou", "miou"), ("val/unknown", "accuracy"), (None, "accuracy")],
)
def test_the_metric_shown_is_the_one_that_the_run_watched(
    monitored: str | None, expected: str
) -> None:
    assert shown_metric({"accuracy": 0.5, "loss": 1.0, "miou": 0.2}, monitored) == expected
    assert shown_metric({"loss": 1.0}, monitored) == "loss"


def test_a_line_tells_how_far_it_is() -> None:
    said = line(POINTS[0], "accuracy", 1, 4)
    assert said == "anytime 1/4  budget 4 from zero  accuracy 0.5  residual 1.0e-01  1 s"
    assert "residual -" in line(POINTS[1], "accuracy", 2, 4)


def test_a_line_for_each_start_in_both_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Axes] = []
    monkeypatch.setattr(budget_plot, "style", lambda axes, *_: drawn.append(axes))
    plot = BudgetPlot(
        "accuracy",
        {"zero": ((4, 0.5), (8, 0.6)), "random": ((4, 0.3), (8, 0.6))},
        {"zero": ((4, 0.1), (8, 0.0)), "random": ((4, 0.2), (8, 0.01))},
        "relative",
    )
    plot.draw(tmp_path / "anytime.png")
    left, right = drawn
    assert [line.get_label() for line in left.lines] == ["from zero", "from random"]
    assert list(left.lines[1].get_ydata()) == [0.3, 0.6]
    assert list(right.lines[0].get_xdata()) == [4]  # zero has no place on a logarithmic axis
    assert right.get_yscale() == "log"
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["4", "8"]


def test_without_any_residual_there_is_still_a_picture(tmp_path: Path) -> None:
    BudgetPlot("loss", {"zero": ((4, 0.5),)}, {"zero": ()}, "").draw(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
