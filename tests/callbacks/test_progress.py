"""The progress bar and the plain lines that replace it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import rich
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from rich.console import Console

from equipoise.callbacks import ConvergenceMonitor, Progress, TrainingCurve
from equipoise.callbacks.progress import duration, early_end, number, part_done, time_left

Run = Callable[..., Any]


LINE = (
    r"epoch 2/2  loss \d\.\d{3}  val accuracy \d\.\d{3}  nfe \d+\.\d/\d+(\.\d)?  "
    r"converged \d+ %  \d+ s"
)


def fitted(toy: Run, loader: Any, make_trainer: Run, *more: Any, **options: Any) -> Any:
    callbacks = [TrainingCurve(), ConvergenceMonitor(), Progress(), *more]
    trainer = make_trainer(callbacks, enable_progress_bar=True, **options)
    trainer.fit(toy(), loader, loader)
    return trainer


def test_one_line_an_epoch_where_there_is_no_terminal(
    toy: Run, loader: Any, make_trainer: Run, capsys: Any
) -> None:
    fitted(toy, loader, make_trainer)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(LINE, lines[1]), lines[1]


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"max_epochs": 2}, ["epoch 1/2", "epoch 2/2"]),
        ({"max_epochs": 5, "max_steps": 8}, ["epoch 1/2", "epoch 2/2"]),
        ({"max_epochs": -1, "max_steps": 6}, ["epoch 1/1"]),
        ({"max_epochs": -1, "max_time": {"milliseconds": 1}}, ["epoch 1"]),
    ],
)
def test_epochs_are_counted_as_they_are_planned(
    toy: Run, loader: Any, make_trainer: Run, capsys: Any, options: Any, epochs: list[str]
) -> None:
    fitted(toy, loader, make_trainer, **options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in lines if line.startswith("epoch")] == epochs


NEVER = {"patience": 1, "mode": "min", "min_delta": 2.0}
OVER = r"stopped after step \d+, in epoch \d: trainer.max_time was reached"
NO_BETTER = (
    "stopped early after step 12, in epoch 2: val/accuracy has not improved for 1 validations"
)


@pytest.mark.parametrize(
    ("stopping", "options", "reason", "said"),
    [
        (None, {"max_time": {"milliseconds": 1}}, "max_time", OVER),
        (NEVER, {"max_epochs": 9}, "early_stopping", NO_BETTER),
        ({}, {"max_epochs": 1}, None, r"epoch 1/1 .*"),
    ],
)
def test_an_early_end_is_said(
    toy: Run, loader: Any, make_trainer: Run, capsys: Any,
    stopping: Any, options: Any, reason: str | None, said: str,
) -> None:  # fmt: skip
    more = [] if stopping is None else [EarlyStopping("val/accuracy", **stopping)]
    trainer = fitted(toy, loader, make_trainer, *more, **options)
    assert early_end(trainer) == reason
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(said, last), last


@pytest.mark.parametrize("metrics", [1, 3, 9])
def test_a_line_fits_80_columns_and_shows_the_monitored_metric(
    toy: Run, loader: Any, make_trainer: Run, capsys: Any, tmp_path: Any, metrics: int
) -> None:
    class Many(type(toy())):  # type: ignore[misc]
        def evaluate(self, batch: Any, stage: str) -> None:
            for index in range(metrics):
                self.log(f"{stage}/metric_{index}", 1.0 + index)

    task = toy()
    task.__class__ = Many
    monitored = f"val/metric_{metrics - 1}"
    saving = ModelCheckpoint(tmp_path, monitor=monitored)
    callbacks = [TrainingCurve(), ConvergenceMonitor(), Progress(), saving]
    make_trainer(
        callbacks, enable_progress_bar=True, enable_checkpointing=True, max_epochs=1
    ).fit(task, loader, loader)  # fmt: skip
    (line,) = capsys.readouterr().out.splitlines()
    assert len(line) < 80
    assert f"val metric_{metrics - 1} {metrics}.000" in line


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.98612, "0.986"), (0.0, "0.000"), (3.5e-5, "3.5e-05"), (3131.7, "3.13e+03")],
)
def test_numbers_keep_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_plain_network_prints_what_it_has(
    toy: Run, loader: Any, make_trainer: Run, capsys: Any
) -> None:
    make_trainer([Progress()], enable_progress_bar=True, max_epochs=1).fit(
        toy(equilibrium=False), loader
    )
    assert re.fullmatch(r"epoch 1/1  lr 1\.0e-01  \d+ s\n", capsys.readouterr().out)


@pytest.fixture
def terminal(monkeypatch: Any, tmp_path: Any) -> Any:
    """A rich console that believes to be a terminal; returns the file it writes to."""
    path = tmp_path / "screen"
    with path.open("w") as file:
        console = Console(file=file, force_terminal=True, width=80)
        monkeypatch.setattr(rich, "_console", console)
        monkeypatch.setattr(rich, "reconfigure", lambda: None)
        monkeypatch.setattr("lightning.pytorch.callbacks.progress.rich_progress.reconfigure", dict)
        yield path


def test_the_bar_reads_the_device_only_at_its_refreshes(
    toy: Run, loader: Any, make_trainer: Run, terminal: Any
) -> None:
    class Counting(Progress):
        reads = 0

        def get_metrics(self, *arguments: Any) -> Any:
            self.reads += 1
            return super().get_metrics(*arguments)

    bar = Counting(refresh_rate=3)
    callbacks = [TrainingCurve(), ConvergenceMonitor(), bar]
    make_trainer(callbacks, enable_progress_bar=True, max_epochs=1).fit(toy(), loader)
    assert bar.reads == 3  # batches 3 and 6, and the end of the epoch
    screen = terminal.read_text()
    for word in ("loss:", "nfe:", "residual:"):
        assert word in screen


def test_a_terminal_shows_the_lines_above_a_bar_of_80_columns(
    toy: Run, loader: Any, make_trainer: Run, terminal: Any
) -> None:
    fitted(toy, loader, make_trainer, max_epochs=2)
    coloured = re.sub(r"\x1b\[[0-9;?]*[A-Za-ln-z]", "\n", terminal.read_text())
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    shown = [line.rstrip() for line in re.split(r"[\r\n]+", plain)]
    assert [line for line in shown if re.fullmatch(LINE, line)]
    assert max(map(len, shown)) <= 80
    bars = [line for line in shown if "6/6" in line and "residual:" in line]
    assert bars
    assert {line.partition("/")[0] for line in bars} == {"epoch 1", "epoch 2"}


def test_a_task_has_notes_of_its_own_in_the_line(
    toy: Run, loader: Any, make_trainer: Run, capsys: Any
) -> None:
    task = toy()
    task.epoch_notes = lambda: ["cells 64", "reports 5000"]
    callbacks = [TrainingCurve(), Progress()]
    make_trainer(callbacks, max_epochs=1, enable_progress_bar=True).fit(task, loader)
    assert "  cells 64  reports 5000  " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (725, "12 min"), (11100, "3 h 05 min"),
     (187_300, "2 d 4 h")],
)  # fmt: skip
def test_a_duration_is_said_in_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"max_epochs": 4}, 0.25),
        ({"max_epochs": 4, "max_steps": 12}, 0.5),
        ({"max_epochs": -1, "max_steps": 60}, 0.1),
        ({"max_epochs": -1, "max_time": {"hours": 2}}, None),
    ],
)
def test_the_time_left_is_that_of_the_whole_run(
    toy: Run, loader: Any, make_trainer: Run, options: Any, part: float | None
) -> None:
    """After the first epoch, of 6 steps, which is said to have taken 30 s."""
    seen = []

    class Look(Progress):
        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.current_epoch == 0:
                seen.append((part_done(trainer), time_left(trainer, 0.0, 30.0)))
                trainer.should_stop = True

    make_trainer([Look()], enable_progress_bar=True, **options).fit(toy(), loader)
    ((done, left),) = seen
    assert done == part
    expected = 7200 if part is None else 30 / part - 30
    assert left == pytest.approx(expected, rel=0.01)


def test_a_resumed_run_counts_what_it_has_done_itself(
    toy: Run, loader: Any, make_trainer: Run
) -> None:
    trainer = fitted(toy, loader, make_trainer, max_epochs=2)
    trainer.fit_loop.max_epochs = 4
    assert part_done(trainer) == 0.5
    assert time_left(trainer, 0.25, 10.0) == pytest.approx(20.0)
    assert time_left(trainer, 0.5, 10.0) is None
