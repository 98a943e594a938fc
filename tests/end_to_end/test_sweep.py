"""A sweep with a table: a job that diverges is a result, and the others run all the same."""

from __future__ import annotations

import csv
import json
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


@pytest.mark.slow
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


TABLES = ("train.py", "-m", "sweep=kernel_table", "task=number_words", "task.train_size=60",
          "task.val_size=4", "task.test_size=4", "task.subwords=300", "task.encoder_layers=1",
          "model.width=16", "model.inner_width=16", "model.heads=2", "model.layers=1",
          "trainer.max_steps=2", "callbacks.report=null", "callbacks.progress=null",
          "trainer.enable_progress_bar=false")  # fmt: skip


def cells(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    with file.open(newline="") as lines:
        head, *rows = csv.reader(lines)
    return {(row[0], row[1]): dict(zip(head, row, strict=True)) for row in rows}


@pytest.mark.end_to_end
@pytest.mark.slow
def test_the_two_tables_of_the_paper_are_one_sweep(command, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    done = command(*TABLES, timeout=600)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    assert len([path for path in sweep.iterdir() if path.is_dir()]) == 17
    kernels, schemes = (
        cells(sweep / f"{n}.csv") for n in ("content_kernels", "positional_schemes")
    )
    both = ("false", "true")
    names = ("linear", "polynomial", "exponential", "rbf")
    assert list(kernels) == [(name, column) for name in names for column in both]
    names = ("none", "direct_sum", "lookup", "product", "symmetric_product")
    assert list(schemes) == [(name, column) for name in names for column in both]
    assert kernels["exponential", "false"]["mean"] == schemes["product", "false"]["mean"]
    assert all(cell["mean"] or cell["lost"] == "diverged" for cell in kernels.values())
    assert "test exact_match" in done.stdout
    assert "highest in its row" in done.stdout


@pytest.mark.slow
@pytest.mark.end_to_end
def test_typed_kernels_shorten_the_sweep(command, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    done = command(*TABLES, "model.attention.kernel=linear,rbf", "model.attention.symmetric=false",
                   "model.attention.positions=none")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    ends = "symmetric-False_positions-none_value_positions-False"
    names = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    assert names == [f"0_kernel-linear_{ends}", f"1_kernel-rbf_{ends}"]
    assert list(cells(sweep / "content_kernels.csv")) == [("linear", "false"), ("rbf", "false")]
    assert not (sweep / "positional_schemes.csv").exists()


@pytest.mark.slow
@pytest.mark.end_to_end
def test_a_sweep_of_resumed_runs_sets_what_only_their_task_has(command, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    trained = command("train.py", "task=number_words", "run_dir=first", *TABLES[4:])
    assert trained.returncode == 0, trained.stderr
    swept = command(
        "train.py", "-m", "ckpt_path=first/checkpoints/last.ckpt", "task.objective.samples=1,2",
        "trainer.max_steps=3",
    )  # fmt: skip
    assert swept.returncode == 0, swept.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    for number in (1, 2):
        (folder,) = sweep.glob(f"*samples-{number}*")
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["steps"] == 3
        assert len(metrics["details"]["samples"]) == number
