"""What metrics.json takes from a task and from callbacks that it knows nothing of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from equipoise.callbacks.lightning_overhead import Observer, grouped
from equipoise.errors import RunFailed
from equipoise.running.parts import Run
from equipoise.running.results import Results, write_results

CHOICES = {"task": "digits", "model": "resnet", "solver": "none", "gradient": "none"}


class Counting(Observer):
    """A callback of another project."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.dirpath = Path("report")

    def summary(self) -> dict[str, Any]:
        return {"train": {"loss": 0.5}, "counted": {"batches": 3}}

    def add(self, picture: Any) -> None:
        """Nothing."""

    def write(self, metrics: dict[str, Any]) -> None:
        self.written.append(metrics)


class Task(LightningModule):
    def details(self) -> dict[str, Any]:
        return {"per_class": {"cat": 0.5}}


def run(tmp_path: Path, *callbacks: Callback) -> Run:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=grouped(callbacks),
    )  # fmt: skip
    return Run(None, Task(), trainer, tmp_path, CHOICES, seed=1)  # type: ignore[arg-type]


def test_summaries_have_their_places_and_what_is_new_is_a_detail(tmp_path: Path) -> None:
    counting, results = Counting(), Results()
    built = run(tmp_path, counting)
    results.note_training(built)
    results.note_test(built)
    metrics = results.as_metrics(built, "completed")
    assert metrics["train"] == {"loss": 0.5}
    assert metrics["details"] == {"counted": {"batches": 3}, "per_class": {"cat": 0.5}}
    assert (metrics["solver"], metrics["solver_stats"]) == (None, None)
    write_results(built, metrics)
    assert counting.written == [metrics]
    assert (tmp_path / "metrics.json").is_file()


@pytest.mark.parametrize("status", ["completed", "interrupted"])
def test_results_that_cannot_be_written_fail_a_run_that_went_well(
    tmp_path: Path, status: str
) -> None:
    (tmp_path / "file").write_text("")
    built = run(tmp_path / "file" / "run")
    metrics = Results().as_metrics(built, status)
    if status == "completed":
        with pytest.raises(RunFailed, match="could not be written"):
            write_results(built, metrics)
    else:
        with pytest.warns(UserWarning, match="could not be written"):
            write_results(built, metrics)
