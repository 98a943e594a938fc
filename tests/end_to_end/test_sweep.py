"""A sweep with a table: a job that diverges is a result, and the others run all the same."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.end_to_end.conftest import SMALL

STARTS = """# @package _global_
sweep:
  grid:
    optimizer.lr: [1.0e-3, 1.0e+30]
    equilibrium:
      - { jitter: [1, 2], random_start: 0.0 }
  tables:
    starts:
      metric: ${task.monitor}
      best: ${task.monitor_mode}
      rows: optimizer.lr
      columns: equilibrium.random_start
      where: { equilibrium.jitter: "${equilibrium.jitter}" }
"""


@pytest.mark.end_to_end
def test_a_job_that_diverges_is_a_result(command, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "starts.yaml").write_text(STARTS)
    done = command("train.py", "-m", f"hydra.searchpath=[file://{tmp_path}]", "sweep=starts",
                   *SMALL, "equilibrium.jitter=1", "trainer.max_steps=6",
                   "trainer.limit_test_batches=1",
                   "callbacks.report=null", "callbacks.progress=null",
                   "trainer.enable_progress_bar=false")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    names = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    assert names == ["0_lr-0.001", "1_lr-1e+30"]
    with (sweep / "starts.csv").open(newline="") as file:
        fine, diverged = csv.DictReader(file)
    assert (fine["optimizer.lr"], fine["column"], fine["lost"]) == ("0.001", "0.0", "")
    assert 0 <= float(fine["mean"]) <= 1
    assert (diverged["mean"], diverged["lost"]) == ("", "diverged")
    assert diverged["reason"].startswith("Training diverged: the loss was not finite at step 5")
    assert "| 1e+30 | diverged |" in (sweep / "starts.md").read_text()
    assert "highest in its row" in done.stdout
