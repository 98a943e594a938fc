"""What a search found: the best completed trial, the record, and a picture that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from equipoise.report.search import Found, TrialRow, show_search

TRIALS = [
    TrialRow(0, "completed", 0.5, {"lr": 0.1}, "0"),
    TrialRow(1, "pruned", 0.9, {"lr": 0.2}, "1"),
    TrialRow(2, "diverged", None, {"lr": 9.0}, "2"),
    TrialRow(3, "completed", 0.7, {"lr": 0.3}, "3"),
    TrialRow(4, "failed", None, {"lr": 0.4}),
]


def found(mode: str, trials: list[TrialRow], importances: dict[str, float]) -> Found:
    return Found("val/accuracy", mode, trials, 6, {"lr": "0 to 9"}, importances)


@pytest.mark.parametrize(("mode", "best"), [("max", 3), ("min", 0)])
@pytest.mark.parametrize("importances", [{}, {"lr": 0.9, "solver+gradient": 0.1}])
def test_the_best_completed_trial_is_told_and_drawn(
    mode: str, best: int, importances: dict[str, float], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    show_search(tmp_path, found(mode, TRIALS, importances), "python train.py lr=0.3")
    record = json.loads((tmp_path / "study.json").read_text())
    assert record["best"]["number"] == best
    assert record["best"]["command"] == "python train.py lr=0.3"
    assert [trial["status"] for trial in record["trials"]] == [t.status for t in TRIALS]
    printed = capsys.readouterr().out
    assert f"best:    trial {best} with val/accuracy" in printed
    assert "2 completed, 1 pruned, 1 diverged, 1 failed (of 6 planned)" in printed
    with Image.open(tmp_path / "search.png") as picture:
        assert len(picture.convert("RGB").getcolors(1_000_000) or []) > 20
        assert (picture.width > 1000) is bool(importances)


def test_without_a_completed_trial_nothing_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_search(tmp_path, found("max", TRIALS[1:3], {}), None)
    assert json.loads((tmp_path / "study.json").read_text())["best"] is None
    assert not (tmp_path / "search.png").exists()
    assert "there is no best val/accuracy" in capsys.readouterr().out
