"""The table of a step's parts: means, the limit, and what measuring has cost."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from equipoise.report.step_parts import SHADES, StepTable, StepTimes

PLAIN, TIMED = [0.036, 0.044], [0.030, 0.050]
EQUILIBRIUM = StepTimes(
    parts=[
        {"evaluations of f": 0.015, "products with J^T": 0.005, "optimiser": 0.010},
        {"evaluations of f": 0.025, "products with J^T": 0.015, "optimiser": 0.010},
    ],
    calls=[{"evaluations of f": 6, "optimiser": 1}, {"evaluations of f": 7, "optimiser": 1}],
    timed=TIMED,
    plain=PLAIN,
)
EXPLICIT = StepTimes(
    parts=[
        {"rest of the model and loss, forward": 0.010, "waiting for data": 0.020},
        {"rest of the model and loss, backward": 0.030, "waiting for data": 0.020},
    ],
    calls=[{}, {}],
    timed=TIMED,
    plain=PLAIN,
)


def test_a_mean_step_and_its_limit() -> None:
    table = StepTable.of(EQUILIBRIUM)
    assert (table.step, table.limit) == pytest.approx((40, 30))
    assert (table.timed, table.plain, table.steps) == (pytest.approx(40), pytest.approx(40), 2)
    first = table.parts[0]
    assert (first.milliseconds, first.share, first.calls) == pytest.approx((20, 0.5, 6.5))
    assert sum(part.share for part in table.parts) == pytest.approx(1)
    text = "\n".join(table.lines())
    assert "1.33 x the limit" in text
    assert "GPU" not in text
    assert "(+0.0 %)" in text


def test_without_an_equilibrium_the_model_is_the_limit() -> None:
    table = StepTable.of(EXPLICIT)
    assert table.limit == pytest.approx(20)
    assert "a step cannot be faster than forward and backward of the model: 2.00 x" in "\n".join(
        table.lines()
    )


def test_steps_that_waited_for_a_gpu_say_so() -> None:
    times = replace(EQUILIBRIUM, synchronised=True)
    assert "each part waits for the GPU" in StepTable.of(times).lines()[-1]


def test_the_files(tmp_path: Path) -> None:
    table, picture = StepTable.of(EQUILIBRIUM).write(tmp_path)
    with table.open(newline="") as file:
        rows = {row["part"]: float(row["milliseconds"]) for row in csv.DictReader(file)}
    assert rows["step"] == pytest.approx(sum(rows[p] for p in rows if p in SHADES))
    with Image.open(picture) as image:
        assert image.size[0] > 1000
    assert picture.with_suffix(".svg").is_file()


def test_neighbours_differ_in_lightness() -> None:
    lightness = [sum(w * c for w, c in zip((0.299, 0.587, 0.114), to_rgb(s), strict=True))
                 for s in SHADES.values()]  # fmt: skip
    steps = [abs(a - b) for a, b in itertools.pairwise(lightness)]
    assert min(steps) > 0.05
