"""The progress bar and the plain lines that replace it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import rich
from rich.console import Console

from equipoise.callbacks import ConvergenceMonitor, Progress, TrainingCurve

Run = Callable[..., Any]


def test_one_line_an_epoch_where_there_is_no_terminal(
    toy: Run, loader: Any, make_trainer: Run, capsys: Any
) -> None:
    callbacks = [TrainingCurve(), ConvergenceMonitor(), Progress()]
    make_trainer(callbacks, enable_progress_bar=True).fit(toy(), loader, loader)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    pattern = (
        r"epoch 2/2  loss \d\.\d{3}  val accuracy \d\.\d{3}  nfe \d+\.\d  "
        r"residual \d\.\de-\d\d  lr 1\.0e-01  \d+ s"
    )
    assert re.fullmatch(pattern, lines[1]), lines[1]


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
        console = Console(file=file, force_terminal=True, width=200)
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
