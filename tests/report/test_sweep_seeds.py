"""The jobs that differ in their seed alone are summed up: mean and deviation of every metric."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import stdev

import pytest

from equipoise.report.sweep_seeds import show_over_seeds
from tests.report.test_summary import write_job

LOSSES = {("0.1", "1"): 2.0, ("0.1", "2"): 3.0, ("0.1", "3"): 4.5, ("0.2", "1"): 1.0}


def write_sweep(folder: Path, losses: dict[tuple[str, str], float | None]) -> Path:
    for number, ((rate, seed), loss) in enumerate(losses.items()):
        name = f"{number}_seed-{seed},lr-{rate}"
        write_job(folder, number, name, [f"optimizer.lr={rate}", f"seed={seed}"], loss)
    return folder


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "seeds.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_metric_has_its_mean_and_deviation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = {**LOSSES, ("0.2", "2"): 1.5, ("0.2", "3"): None}
    show_over_seeds(write_sweep(tmp_path, losses))
    loss, accuracy, other, _ = read(tmp_path)
    assert loss["optimizer.lr"] == accuracy["optimizer.lr"] == "0.1"
    assert (loss["metric"], float(loss["mean"])) == ("loss", pytest.approx(9.5 / 3, rel=1e-5))
    assert float(loss["sd"]) == pytest.approx(stdev([2, 3, 4.5]), rel=1e-5)
    assert (accuracy["metric"], accuracy["mean"], accuracy["sd"]) == ("accuracy", "0.5", "0")
    assert (other["optimizer.lr"], other["mean"], other["seeds"]) == ("0.2", "1.25", "2")
    printed = capsys.readouterr().out
    assert "3.1667 ± 1.2583" in printed
    assert "optimizer.lr=0.2" in printed
    assert "2 seeds" in printed


def test_a_setting_with_a_single_seed_has_no_deviation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_over_seeds(write_sweep(tmp_path, {**LOSSES}))
    assert {row["optimizer.lr"] for row in read(tmp_path)} == {"0.1"}
    assert "0.2" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "losses",
    [{("0.1", "1"): 2.0, ("0.2", "1"): 1.0}, {("0.1", "1"): 2.0, ("0.1", "2"): None}],
)
def test_without_two_seeds_there_is_nothing_to_sum_up(
    losses: dict[tuple[str, str], float | None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_over_seeds(write_sweep(tmp_path, losses))
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "seeds.csv").exists()


def test_of_many_settings_the_file_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = {(str(rate), str(seed)): 1.0 for rate in range(7) for seed in (1, 2)}
    show_over_seeds(write_sweep(tmp_path, many))
    assert len(read(tmp_path)) == 14
    assert "±" not in capsys.readouterr().out
