"""Real command lines, ended by SIGTERM and `kill -9`, with which `resume=auto` goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from equipoise.running.api import run
from tests.end_to_end.conftest import ROOT, environment, heed_interrupts
from tests.end_to_end.resuming import BATCHES, TASKS, checkpoint, curve, differences
from tests.end_to_end.test_resume import KEPT

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]
GAP = 4
"""Steps between two signals, at least."""
TIMED = ("callbacks=[default,checkpoint_timed]", "callbacks.checkpoint_timed.minutes=0.001")


class Case(NamedTuple):
    """A run; one that is told in steps also saves by the clock."""

    unit: str = "epochs"
    workers: int = 0
    accumulate: int = 1
    epochs: int = 12

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.epochs * -(-BATCHES // self.accumulate)


def words_of(case: Case) -> tuple[str, ...]:
    length = {
        "epochs": (f"trainer.max_epochs={case.epochs}", "trainer.max_steps=-1"),
        "steps": (f"trainer.max_steps={case.steps}", *TIMED),
    }[case.unit]
    return (
        "task=digits", "seed=7", *TASKS["digits"], "model.dropout=0.2",
        "trainer.deterministic=true", "trainer.log_every_n_steps=1", "callbacks.report=null",
        "trainer.enable_progress_bar=false", "~callbacks.progress", *length,
        f"task.num_workers={case.workers}", f"trainer.accumulate_grad_batches={case.accumulate}",
    )  # fmt: skip


def started(folder: Path, words: Sequence[str]) -> subprocess.Popen[str]:
    """The same command line every time; its processes are a group of their own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words, "run_dir=part", "resume=auto"],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts, start_new_session=True,
    )  # fmt: skip


def latest(folder: Path) -> int:
    """The last step of the curve, which a running process may be writing."""
    rows = curve(folder) if (folder / "metrics.csv").is_file() else []
    return max((int(row["step"]) for row in rows if (row.get("step") or "").isdigit()), default=0)


def end_at(
    step: int, number: signal.Signals, delay: float, folder: Path, words: Sequence[str]
) -> None:
    """Start the command, and send it a signal a moment after it has come to a step."""
    process = started(folder, words)
    deadline = time.monotonic() + 240
    while latest(folder / "part") < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(number)
    out, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors, errors
    expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143}[number]
    assert process.returncode == expected, (out, errors)


def check(case: Case, numbers: Sequence[signal.Signals], seed: int, folder: Path) -> None:
    """The broken run, after as many signals at random steps, is the whole run bit for bit."""
    words, draw = words_of(case), random.Random(seed)
    room = (case.steps - GAP) // len(numbers)
    run(*words, f"run_dir={folder / 'whole'}")
    for place, number in enumerate(numbers):
        at = place * room + draw.randint(GAP, max(GAP, room - 1))
        end_at(at, number, draw.uniform(0.0, 0.05), folder, words)
    process = started(folder, words)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "resume=auto: continues in part after step" in out
    for name in ("last.ckpt", "best.ckpt"):
        reached, expected = (checkpoint(folder / at, name) for at in ("part", "whole"))
        for key in KEPT:
            assert differences(reached.get(key), expected.get(key), key) == []
    assert curve(folder / "part") == curve(folder / "whole")
    assert not list((folder / "part").rglob("*.partial"))


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children")
    if not listed.exists():
        pytest.skip("this system does not list the children of a process")
    return [int(child) for child in listed.read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "more", "number"),
    [
        (Case(workers=2), (), signal.SIGTERM),
        (Case(workers=2), (), signal.SIGUSR1),
        (Case(), ("strategy=ddp_cpu", "trainer.devices=2"), signal.SIGUSR1),
    ],
    ids=["SIGTERM to workers too", "SIGUSR1 to workers too", "SIGUSR1 to the second process"],
)
def test_a_signal_to_other_processes_of_a_run_stops_it_as_one_to_the_first(
    case: Case, more: tuple[str, ...], number: signal.Signals, tmp_path: Path
) -> None:
    """A scheduler signals every process of a job; of those that train, one is enough."""
    words = (*words_of(case), *more)
    process = started(tmp_path, words)
    deadline = time.monotonic() + 240
    while latest(tmp_path / "part") < 7:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if more:
        os.kill(children(process.pid)[0], number)
    else:
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors, errors
    reached = checkpoint(tmp_path / "part")["global_step"]
    out, errors = started(tmp_path, words).communicate(timeout=240)
    assert f"continues in part after step {reached}" in out, errors
    assert checkpoint(tmp_path / "part")["epoch"] == case.epochs - 1


def test_a_run_that_was_ended_and_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    check(Case("steps", epochs=4), [signal.SIGTERM, signal.SIGKILL], 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [Case(*axes) for axes in product(("epochs", "steps"), (0, 2), (1, 2))],
    ids=lambda case: "-".join(map(str, case)),
)
def test_three_signals_and_three_kills_at_random_moments_change_no_bit(
    case: Case, tmp_path: Path
) -> None:
    seed = sum(map(ord, str(case)))
    numbers = [signal.SIGTERM, signal.SIGKILL] * 3
    random.Random(seed).shuffle(numbers)
    check(case, numbers, seed, tmp_path)
