"""Reading the curve back."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.report.curves import CurveFile, plots
from equipoise.report.lines import Span

TEXT = """step,epoch,train/loss,val/loss,gradient,solver/residual_median,lr-SGD
2,0,2.0,,unrolled,0.5,
3,0,,1.5,,,0.1
4,0,nan,,unrolled,0.25,
5,1,1.0,,phantom,0.0,
8,1,0.5,,phantom,0.125,0.2
"""


@pytest.fixture
def curve(tmp_path: Path) -> CurveFile:
    """The curve of a run of two phases."""
    path = tmp_path / "metrics.csv"
    path.write_text(TEXT)
    return CurveFile(path)


def test_points_leave_out_empty_and_non_finite_cells(curve: CurveFile) -> None:
    assert curve.points("train/loss") == ((2, 2.0), (5, 1.0), (8, 0.5))
    assert curve.points("val/loss") == ((3, 1.5),)
    assert curve.points("absent") == ()


def test_spans_join_where_the_estimator_changes(curve: CurveFile) -> None:
    assert curve.gradient_spans() == (Span("unrolled", 0, 4), Span("phantom", 4, 8))


def test_plots_of_what_there_is(curve: CurveFile) -> None:
    found = {plot.name: plot for plot in plots(curve, tolerance=1e-3)}
    assert set(found) == {"loss", "residual", "learning_rate"}
    assert [label for label, _ in found["loss"].lines] == ["training", "validation"]
    # a logarithmic axis has no place for zero
    assert found["residual"].lines[0][1] == ((2, 0.5), (4, 0.25), (8, 0.125))
    assert found["residual"].level == ("tolerance", 1e-3)
    assert found["learning_rate"].lines == (("SGD", ((3, 0.1), (8, 0.2))),)


def test_a_file_that_is_not_there_has_no_curve(tmp_path: Path) -> None:
    assert plots(CurveFile(tmp_path / "absent.csv"), None) == []
    assert plots(CurveFile(None), None) == []
