"""`trainer.deterministic=true`: the same command gives the same bits, whatever stands around it.

The first runs of all cases share a process. The second ones share another, in the reverse order, in
which Python puts sets into another order too; a third process goes on with those that were
interrupted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from equipoise.commands.reproduce.comparison import Part, compared
from equipoise.commands.reproduce.original import original
from tests.end_to_end.conftest import environment
from tests.end_to_end.resuming import TASKS

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
COMMON = ("seed=7", "trainer.deterministic=true", "callbacks.report=null", "~callbacks.progress",
          "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=2")  # fmt: skip
LENGTH = {"range_query": (), "hyperparameter": ("trainer.max_steps=5", "trainer.max_epochs=-1")}
EPOCH = ("trainer.max_epochs=1",)
RUNS = """
import json, sys
from equipoise.errors import RunInterrupted
from equipoise.running.api import run
for words in json.load(sys.stdin):
    try:
        run(*words)
    except RunInterrupted:
        pass
"""


class Case(NamedTuple):
    """A task, settings on top of its small run, and the step after which it is interrupted."""

    task: str
    words: tuple[str, ...] = ()
    workers: tuple[int, int] = (0, 0)
    stop: int = 0


BUNDLED = ("digits", "digit_scenes", "python_docs", "number_words", "trimodal", "ssl_digits",
           "nmr_small", "range_query", "hyperparameter")  # fmt: skip
WITH_WORKERS = ("digits", "digit_scenes", "ssl_digits")
ESTIMATORS = {
    "exact": (), "phantom": (), "neumann": (), "jfb": (), "shine": (), "auto": (),
    "unrolled": ("gradient.steps=4",), "reversible": ("gradient.steps=4",),
}  # fmt: skip
OTHERS = {
    "regularizer=jacobian": (), "regularizer=correction": (),
    "equilibrium.jitter=2": ("equilibrium.random_start=0.5",),
    "solver=broyden": (), "solver=newton_krylov": (), "solver=adjoint_broyden": (),
    "callbacks=[default,ema]": (), "callbacks=[default,warm_start]": (),
    "strategy=ddp_cpu": ("trainer.devices=2", "task.batch_size=150"),
}  # fmt: skip
EVERY = [
    *(Case(task, workers=(0, 2) if task in WITH_WORKERS else (0, 0)) for task in BUNDLED),
    *(Case(task, stop=3) for task in BUNDLED),
    *(Case("digits", (f"gradient={name}", *words), stop=stop)
      for name, words in ESTIMATORS.items() for stop in (0, 3)),
    *(Case("digits", (name, *words), stop=stop)
      for name, words in OTHERS.items() for stop in (0, 3)),
]  # fmt: skip


def words_of(case: Case, workers: int) -> list[str]:
    words = [f"task={case.task}", *TASKS[case.task], *COMMON, *LENGTH.get(case.task, EPOCH)]
    if case.task in WITH_WORKERS:
        words.append(f"task.num_workers={workers}")
    return [*words, *case.words]


def name_of(case: Case) -> str:
    return "-".join([case.task, *case.words, *map(str, case.workers), str(case.stop)])


def second_words(case: Case) -> list[str]:
    stop = f"{{_target_: equipoise.callbacks.StopAfter, steps: {case.stop}}}"
    added = [f"+callbacks.stop_after={stop}"] if case.stop else []
    return [*words_of(case, case.workers[1]), *added]


def going_on(folder: Path) -> list[str]:
    return [f"ckpt_path={folder}/checkpoints/last.ckpt", "~callbacks.stop_after"]


def carry_out(runs: Sequence[tuple[list[str], Path]], hash_seed: int) -> None:
    """Train one after another in a process of their own."""
    words = [[*each, f"run_dir={folder}"] for each, folder in runs]
    done = subprocess.run(
        [sys.executable, "-c", RUNS], input=json.dumps(words), capture_output=True, text=True,
        env={**environment(), "PYTHONHASHSEED": str(hash_seed)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


class Made(NamedTuple):
    """The folders of the first and of the second run of a case."""

    first: Path
    second: Path

    def parts(self) -> list[Part]:
        """What they have in common."""
        return compared(original(self.first, [], None), self.second, 0.0)


@pytest.fixture(scope="module")
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Made]:
    """The runs of all cases that were asked for."""
    items = [item for item in request.session.items if "made" in item.fixturenames]
    cases = [item.callspec.params["case"] for item in items if hasattr(item, "callspec")]
    folder = tmp_path_factory.mktemp("runs")
    runs = {case: Made(*(folder / f"{number}_{k}" for k in (1, 2)))
            for number, case in enumerate(cases)}  # fmt: skip
    carry_out([(words_of(case, case.workers[0]), runs[case].first) for case in cases], 1)
    carry_out([(second_words(case), runs[case].second) for case in reversed(cases)], 2)
    stopped = [runs[case].second for case in cases if case.stop]
    carry_out([(going_on(place), place) for place in stopped], 3)
    return runs


@pytest.mark.parametrize("case", EVERY, ids=name_of)
def test_every_task_and_estimator_gives_the_same_bits(case: Case, made: dict[Case, Made]) -> None:
    parts = made[case].parts()
    assert [f"{part.name} {part.verdict}" for part in parts if part.differences] == []
    compared_parts = ["curve", "final metrics", "last.ckpt", "best.ckpt"]
    assert [part.name for part in parts if part.compared > 5] == compared_parts


def test_another_seed_gives_other_bits(tmp_path: Path) -> None:
    """Else the comparison could not fail."""
    folders = [tmp_path / "1", tmp_path / "2"]
    words = words_of(Case("digits"), 0)
    carry_out([([*words, f"seed={place.name}"], place) for place in folders], 1)
    assert all(part.differences for part in Made(*folders).parts())
