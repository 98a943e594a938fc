"""`python -m equipoise profile`: where a step's time goes, of every kind of task."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from equipoise import commands
from equipoise.commands.profile import Request, main, read
from equipoise.errors import UserError
from equipoise.running.api import checked

ROOT = Path(__file__).parents[2]
COMMAND = "python -m equipoise profile "
EVALUATIONS, PRODUCTS = "evaluations of f", "products with J^T"
OF_A_STEP = ("step", "limit", "median step with timers", "median step without timers")


def profiled(folder: Path, *words: str) -> dict[str, tuple[float, float]]:
    """Milliseconds and calls of each line of profile.csv."""
    assert commands.run(["profile", "callbacks.progress=null", f"run_dir={folder}", *words]) == 0
    with (folder / "profile.csv").open(newline="") as file:
        return {row["part"]: (float(row["milliseconds"]), float(row["calls"]))
                for row in csv.DictReader(file)}  # fmt: skip


@pytest.mark.parametrize("words", [
    ("task=digits", "gradient=exact", "model.size=tiny"),
    ("task=copy_memory", "model=deq_transformer", "task.train_size=64", "task.batch_size=4",
     "trainer.max_epochs=2"),
], ids=["digits", "sequences"])  # fmt: skip
def test_the_parts_of_a_step_add_up_beside_its_limit(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = profiled(tmp_path / "run", *words, "solver.max_steps=6", "steps=2", "warm_up=1")
    step, limit = parts["step"][0], parts["limit"][0]
    spent = {name: times for name, times in parts.items() if name not in OF_A_STEP}
    assert sum(time for time, _ in spent.values()) == pytest.approx(step, rel=1e-3)
    assert 0 < limit < step
    assert parts[EVALUATIONS][1] >= 6 <= parts[PRODUCTS][1] + 5
    assert {"optimiser", "waiting for data", "callbacks and logging"} <= set(spent)
    assert {"solver algebra, forward", "rest of the model and loss, backward"} <= set(spent)
    printed = capsys.readouterr().out
    assert "mean of 2 steps; a step cannot be faster than its evaluations of f" in printed
    assert printed.endswith(f"{tmp_path / 'run' / 'profile.png'}\n")
    with Image.open(tmp_path / "run" / "profile.png") as picture:
        assert picture.size[0] > 1000
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "profile.svg"} <= left
    assert "metrics.json" not in left


SLOW = {
    "an explicit network": ("model=resnet",),
    "an unrolled one": ("gradient=unrolled", "model.size=tiny"),
    "reversible": ("gradient=reversible", "model.size=tiny"),
    "regularised": ("regularizer=jacobian", "model.size=tiny"),
    "accumulated": ("trainer.accumulate_grad_batches=2", "model.size=tiny"),
    "averaged": ("callbacks=[default,ema]", "model.size=tiny"),
    "segmentation": ("task=digit_scenes", "task.train_scenes=64", "task.batch_size=4"),
    "both": ("task=digits_and_scenes", "task.train_scenes=64", "task.batch_size=4"),
    "two views": ("task=ssl_digits", "task.objective.untrained=false"),
    "translation": ("task=number_words", "task.train_size=500"),
    "language": ("task=python_docs", "task.batch_size=2"),
    "couplings": ("task=nmr_small", "task.batch_size=4", "model.equilibrium=true"),
    "streams": ("task=trimodal", "task.batch_size=4", "model.equilibrium=true"),
    "surveys": ("task=range_query", "task.users=2000", "task.batch_size=50"),
    "hyper-parameters": ("task=hyperparameter", "trainer.max_epochs=9"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW)
def test_every_kind_of_run_is_profiled(kind: str, tmp_path: Path) -> None:
    parts = profiled(tmp_path / "run", *SLOW[kind], "steps=2", "warm_up=1")
    spent = {name: time for name, (time, _) in parts.items() if name not in OF_A_STEP}
    assert sum(spent.values()) == pytest.approx(parts["step"][0], rel=1e-3)
    assert 0 < parts["limit"][0] < parts["step"][0]
    explicit = kind in ("an explicit network", "two views", "translation", "surveys")
    assert (EVALUATIONS in parts) is not explicit


def test_its_own_settings_stand_among_those_of_the_run() -> None:
    words = ["task=digits", "steps=3", "solver=broyden", "warm_up=0"]
    assert read(words) == (Request(3, 0), ["task=digits", "solver=broyden"])
    assert read([]) == (Request(10, 2), [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["steps=0"], "profile: steps=0 must be a whole number, 1 or more"),
        (["warm_up=-1"], "profile: warm_up=-1 must be a whole number, 0 or more"),
        (["steps=many"], "profile: steps=many must be a whole number"),
        (["seed=1,2"], "several values at once need a multirun"),
        (["task=digit"], "digit"),
        (["--multirun"], "there is no flag --multirun"),
        (["trainer.max_epochs=1", "trainer.max_steps=2", "run_dir={}/run"],
         "the run ended after 2 steps, before any could be timed: lower warm_up=2"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_a_sentence(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        main([word.format(tmp_path) for word in words])


def test_the_commands_of_the_page_compose() -> None:
    lines = (ROOT / "docs" / "profile.md").read_text().splitlines()
    found = [line.removeprefix(COMMAND) for line in lines if line.startswith(COMMAND)]
    for line in (line for line in found if not line.startswith("[")):
        _, overrides = read(line.split())
        assert checked(overrides).config.task
    assert len(found) > 3
