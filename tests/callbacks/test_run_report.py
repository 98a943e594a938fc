"""The report of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from equipoise.callbacks import ConvergenceMonitor, RunReport, TrainingCurve
from equipoise.report.page import Picture

Run = Callable[..., Any]
PNG = b"\x89PNG"


def test_a_whole_run(toy: Run, loader: Any, make_trainer: Run, tmp_path: Path) -> None:
    task, report = toy(exact=True), RunReport(tmp_path / "report")
    trainer = make_trainer([TrainingCurve(), ConvergenceMonitor(), report])
    trainer.fit(task, loader, loader)
    solver = task.model.equilibrium.solver
    trainer.test(task, loader, verbose=False)
    assert task.model.equilibrium.solver is solver
    names = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert names == {
        "loss.png",
        "accuracy.png",
        "residual.png",
        "nfe.png",
        "converged.png",
        "convergence.png",
    }
    assert all((tmp_path / "report" / name).read_bytes().startswith(PNG) for name in names)
    html = (tmp_path / "report" / "index.html").read_text()
    assert all(f'href="{name}"' in html for name in names)
    assert all(f'href="{name[:-4]}.svg"' in html for name in names)
    assert html.count("data:image/png;base64,") == len(names)
    assert "ToyNetwork" in html


def test_the_trace_is_that_of_the_first_test_batch(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    task, report = toy(), RunReport(tmp_path / "report")
    make_trainer([report]).test(task, loader, verbose=False)
    (trace,) = report.traces
    assert (trace.solver, trace.tolerance) == ("anderson", 1e-3)
    assert trace.residuals.shape[1] == 8
    assert (trace.residuals.min(dim=0).values <= 1e-3).all()


def test_write_takes_the_metrics_and_draws_nothing_anew(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    report = RunReport(tmp_path / "report")
    make_trainer([TrainingCurve(), ConvergenceMonitor(), report], max_epochs=1).fit(toy(), loader)
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "report").glob("*.png")}
    report.write(
        {
            "task": "digits",
            "model": "mdeq",
            "status": "interrupted",
            "parameters": 12345,
            "test": {"accuracy": 0.98765, "details": {"per_class": [1, 2]}},
            "solver_stats": None,
            "gradient_stats": {"nfe_mean": 2.0, "residual_median": None},
        }
    )
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn
    html = (tmp_path / "report" / "index.html").read_text()
    for text in ("digits · mdeq", "interrupted", "12\u202f345", "0.9877", "nfe mean"):
        assert text in html
    assert "per_class" not in html


def test_text_is_escaped(tmp_path: Path) -> None:
    RunReport(tmp_path).write({"task": "<script>", "model": "a&b"})
    html = (tmp_path / "index.html").read_text()
    assert "<script>" not in html
    assert "&lt;script&gt; · a&amp;b" in html


def test_the_page_has_the_command_and_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task:\n  path: <data>\n")
    RunReport(tmp_path / "report").write({"command": "python train.py 'a=<b>'", "device": "TPU"})
    html = (tmp_path / "report" / "index.html").read_text()
    for text in ("python train.py &#x27;a=&lt;b&gt;&#x27;", "path: &lt;data&gt;", "TPU"):
        assert text in html


def test_the_pictures_are_logged_once_at_the_end(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    loggers = [
        CSVLogger(tmp_path, name="csv", version=""),
        TensorBoardLogger(tmp_path, name="board", version=""),
        WandbLogger(project="toy", save_dir=tmp_path, offline=True),
    ]
    report = RunReport(tmp_path / "report")
    make_trainer([TrainingCurve(), report], logger=loggers, max_epochs=1).fit(toy(), loader)
    assert not list(tmp_path.rglob("media/**/*.png"))
    report.write({})
    wandb.finish()
    files = [file.name for file in tmp_path.rglob("media/**/*.png")]
    assert sorted(name.partition("_")[0] for name in files) == ["accuracy", "loss"]
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    assert sorted(board.Tags()["images"]) == ["report/accuracy", "report/loss"]


@pytest.mark.parametrize("logger", [False, "tensorboard"])
def test_without_csv_the_page_says_where_the_curves_are(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path, logger: Any
) -> None:
    if logger == "tensorboard":
        logger = TensorBoardLogger(tmp_path, name="board", version="")
    report = RunReport(tmp_path / "report")
    make_trainer([report], logger=logger, max_epochs=1).fit(toy(), loader)
    html = (tmp_path / "report" / "index.html").read_text()
    expected = "TensorBoardLogger in" if logger else "No logger was active"
    assert expected in html


def test_a_network_without_equilibrium(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    task, report = toy(equilibrium=False), RunReport(tmp_path / "report")
    trainer = make_trainer([TrainingCurve(), ConvergenceMonitor(), report])
    trainer.fit(task, loader)
    trainer.test(task, loader, verbose=False)
    names = {path.name for path in (tmp_path / "report").glob("*.png")}
    assert names == {"loss.png", "accuracy.png"}


def test_a_test_that_fails_gives_the_solver_back(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    task = toy()
    solver = task.model.equilibrium.solver

    def fail(*_: Any) -> None:
        raise ArithmeticError

    task.test_step = fail
    with pytest.raises(ArithmeticError):
        make_trainer([RunReport(tmp_path / "report")]).test(task, loader, verbose=False)
    assert task.model.equilibrium.solver is solver


def test_a_task_adds_pictures_of_its_own(
    toy: Run, loader: Any, make_trainer: Run, tmp_path: Path
) -> None:
    def pictures(folder: Path) -> list[Picture]:
        (folder / "own.png").write_bytes(PNG)
        return [Picture("own.png", "Drawn by the task.")]

    task, report = toy(), RunReport(tmp_path)
    task.pictures = pictures
    make_trainer([report]).test(task, loader, verbose=False)
    html = (tmp_path / "index.html").read_text()
    assert 'href="own.png"' in html
    assert "Drawn by the task." in html
