"""Two runs number by number, of folders written by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.commands.reproduce.comparison import Part, apart, compared
from equipoise.commands.reproduce.original import original
from tests.commands.reproduce.runs import ROWS, metrics, write_run


def parts(tmp_path: Path, *, deterministic: bool = True, steps: int | None = None,
          reached: Any = None, **second: Any) -> dict[str, Part]:  # fmt: skip
    """What a run and a second one have in common; second: how that was written."""
    first = write_run(tmp_path / "first", metrics(), deterministic=deterministic)
    write_run(tmp_path / "second", reached or metrics(seconds=3.5, peak_rss_mb=7.0), **second)
    found = compared(original(first, [], steps), tmp_path / "second", 1e-3)
    return {part.name: part for part in found}


def test_the_same_run_is_equal_whatever_clocks_say(tmp_path: Path) -> None:
    rows = [{**row, "train/seconds": "7"} if "train/seconds" in row else row for row in ROWS]
    found = parts(tmp_path, rows=rows)
    assert all(part.equal for part in found.values())
    said = [part.verdict for part in found.values()]
    assert said == [*["equal to the bit"] * 3, "not compared: the run has none"]
    assert found["curve"].compared == 11


@pytest.mark.parametrize(
    ("deterministic", "loss", "equal"),
    [(True, "2.2500000001", False), (False, "2.2500000001", True), (False, "2.3", False)],
)
def test_a_deterministic_run_has_to_give_the_same_bits_and_others_nearly(
    tmp_path: Path, deterministic: bool, loss: str, equal: bool
) -> None:
    rows = [ROWS[0], {**ROWS[1], "train/loss": loss}, ROWS[2]]
    curve = parts(tmp_path, deterministic=deterministic, rows=rows)["curve"]
    assert curve.equal == equal
    assert len(curve.differences) == 1
    assert "first step 4: train/loss" in curve.verdict.replace(" at ", " ")


def test_the_first_step_that_differs_is_named(tmp_path: Path) -> None:
    rows = [{**row, "train/loss": "9"} if "train/loss" in row else row for row in ROWS]
    curve = parts(tmp_path, rows=rows[::-1])["curve"]
    assert curve.verdict == "differs first at step 2: train/loss: 2.5 -> 9.0"
    assert len(curve.differences) == 2


def test_a_row_that_is_missing_differs(tmp_path: Path) -> None:
    curve = parts(tmp_path, rows=ROWS[:2])["curve"]
    assert curve.largest == math.inf
    assert curve.verdict == "differs first at step 4, val: epoch: 0.0 -> None"


def test_the_first_steps_are_compared_without_what_came_later(tmp_path: Path) -> None:
    shorter = metrics(status="interrupted", steps=2)
    found = parts(tmp_path, steps=2, rows=ROWS[:1], reached=shorter)
    assert found["curve"].verdict == "equal to the bit"
    assert found["curve"].compared == 4
    assert found["final metrics"].verdict == "not compared: the run ended after 4 steps"


def test_weights_and_metrics_that_differ_are_named(tmp_path: Path) -> None:
    found = parts(tmp_path, weight=1.5, reached=metrics(test={"loss": 2.5}))
    assert found["last.ckpt"].verdict.startswith("differs first at state_dict.weight: tensor [2]")
    assert found["last.ckpt"].largest == 0.25  # of the larger weight
    assert found["final metrics"].verdict == "differs first at test.loss: 2.0 -> 2.5"


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        (1, 1.0, 0), (2.0, 1.0, 0.5), (math.nan, math.nan, 0), (math.nan, 1.0, math.inf),
        (None, None, 0), (None, 1.0, math.inf), ("a", "b", math.inf), ("a", "a", 0),
        (torch.ones(2), torch.ones(2), 0), (torch.ones(2), torch.ones(3), math.inf),
        (torch.ones(2), torch.ones(2).double(), math.inf), (torch.ones(2), None, math.inf),
        (torch.tensor([math.nan]), torch.tensor([math.nan]), 0),
        (torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.0]), 0.25),
        (torch.tensor(True), torch.tensor(False), 1), (torch.tensor(3), torch.tensor(3), 0),
    ],
)  # fmt: skip
def test_how_far_values_are_apart(one: Any, two: Any, expected: float) -> None:
    assert apart(one, two) == apart(two, one) == expected


def test_positive_and_negative_zero_are_other_bits() -> None:
    assert 0 < apart(torch.tensor([0.0]), torch.tensor([-0.0])) < 1e-300
