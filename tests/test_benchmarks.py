"""The commands of the benchmarks run to their end on a CPU with tiny sizes, and leave tables."""

from __future__ import annotations

import csv
import importlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import LEAST, PARTS
from benchmarks.growth import exponent
from benchmarks.report import Report, TimeLimit
from benchmarks.target_accuracy import compare

ROOT = Path(__file__).parents[1]


def benchmark(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with a benchmark."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def rows_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_part_is_a_module_with_a_command(part) -> None:
    module = importlib.import_module(f"benchmarks.{part.name}")
    assert callable(module.main)
    assert module.__doc__.splitlines()[2].strip().startswith(f"python -m benchmarks.{part.name}")


def test_the_parts_fit_into_half_an_hour() -> None:
    assert sum(part.seconds for part in PARTS) <= 1740


@pytest.mark.end_to_end
def test_one_part_runs_to_its_end_and_leaves_its_table(tmp_path: Path) -> None:
    ended = benchmark("benchmarks", "--quick", "--only", "steps", "--output", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    text = (tmp_path / "bench.md").read_text()
    assert len(rows_of(text)) == 3
    assert text in ended.stdout
    assert (tmp_path / "steps.md").read_text() in text


@pytest.mark.end_to_end
def test_what_no_time_is_left_for_is_named(tmp_path: Path) -> None:
    ended = benchmark(
        "benchmarks", "--quick", "--seconds", str(LEAST - 1), "--output", str(tmp_path)
    )
    text = (tmp_path / "bench.md").read_text()
    assert ended.returncode == 0
    assert all(f"{part.name} was left out" in text for part in PARTS)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_all_parts_run_to_their_end_with_tiny_sizes(tmp_path: Path) -> None:
    ended = benchmark("benchmarks", "--quick", "--output", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    for part in PARTS:
        assert len(rows_of((tmp_path / f"{part.name}.md").read_text())) >= 2
    assert "failed" not in (tmp_path / "bench.md").read_text()


@pytest.mark.slow
@pytest.mark.end_to_end
def test_the_benchmark_of_a_gpu_runs_to_its_end_on_a_cpu(tmp_path: Path) -> None:
    ended = benchmark("benchmarks.gpu", "--quick", "--device", "cpu", "--output", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    with (tmp_path / "gpu.csv").open() as file:
        sides = {row["side"] for row in csv.DictReader(file)}
    assert {"ours", "bare"} <= sides
    with (tmp_path / "cifar.csv").open() as file:
        found = list(csv.DictReader(file))
    assert {row["network"] for row in found} == {"MDEQ tiny", "ResNet"}
    assert all(0 <= float(row["accuracy"]) <= 1 for row in found)
    assert (tmp_path / "cifar.png").stat().st_size > 0
    assert len(rows_of((tmp_path / "memory.md").read_text())) > 8


def test_the_exponent_is_that_of_a_power_and_its_error_that_of_the_noise() -> None:
    sizes = [1.0, 2.0, 4.0, 8.0]
    slope, error = exponent(sizes, [3 * size**1.5 for size in sizes])
    assert slope == pytest.approx(1.5)
    assert error == pytest.approx(0.0, abs=1e-9)
    _, noisy = exponent(sizes, [3 * size**1.5 * (1.1 if size == 4 else 1) for size in sizes])
    assert noisy > 0.01
    assert math.isnan(exponent(sizes[:2], sizes[:2])[1])


def test_a_report_is_on_the_screen_and_in_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(tmp_path / "folder" / "part.md")
    report.heading("Cost")
    report.columns("side", "ms", "ratio")
    report.row("ours", 1234.5, None)
    report.sentence("The end.")
    text = (tmp_path / "folder" / "part.md").read_text()
    assert text == capsys.readouterr().out
    expected = (
        "### Cost\n\n| side | ms | ratio |\n|---|---|---|\n| ours | 1234 |  |\n\nThe end.\n\n"
    )
    assert text == expected


def test_a_time_limit_names_what_it_leaves_out() -> None:
    report = Report()
    limit = TimeLimit(seconds=10.0)
    assert limit.allows("first")
    assert not limit.allows("second", needed=60.0)
    assert list(limit.left_out) == ["second"]
    limit.tell(report)


def test_the_best_sides_and_equal_settings_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    times = {"ours: jfb": 4.0, "ours: phantom": 9.0, "torchdeq: jfb": 8.0, "ResNet": 2.0}
    compare(Report(), times)
    told = capsys.readouterr().out
    assert "same setting: jfb: 0.50." in told
    assert "Best of ours (ours: jfb) over torchdeq: jfb: 0.50." in told
    assert "over ResNet: 2.00." in told
