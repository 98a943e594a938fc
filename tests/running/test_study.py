"""The study of a search: reproducible, and continued after whatever ends its process."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")

from equipoise.config.search import Outcome, Search
from equipoise.config.search_space import Case, Parameter, Space
from equipoise.errors import UserError
from equipoise.running.study import TrialStudy

RATE = Parameter("lr", "float", low=1e-4, high=1.0, log=True)
STEPS = Parameter("steps", "int", low=1, high=4, step=1)
KIND = Parameter("kind", "choice", ("plain", "damped"))
DAMPING = Parameter("damping", "float", low=0.0, high=1.0, step=0.5)
SPACE = Space(("task=toy",), (), (Case((), (RATE, STEPS)),))
BRANCHED = Space(
    (), (KIND,), (Case(("kind=plain",), ()), Case(("kind=damped",), (DAMPING,)))
)  # fmt: skip


def search(**changed: Any) -> Search:
    base = {"trials": 8, "at_once": None, "sampler": "tpe", "pruner": "none", "storage": "journal",
            "study": None, "seed": 3, "space": {}}  # fmt: skip
    return Search(**{**base, **changed})


def study(folder: Path, space: Space = SPACE, mode: str = "min", **changed: Any) -> TrialStudy:
    folder.mkdir(exist_ok=True)
    return TrialStudy(search(**changed), space, mode, folder)


def loss(lines: list[str]) -> float:
    """Lowest at lr = 0.01 and steps = 2."""
    values = dict(line.split("=") for line in lines)
    return (math.log10(float(values["lr"])) + 2) ** 2 + (float(values["steps"]) - 2) ** 2 / 10


def run(trials: TrialStudy, most: int = 1, batches: int = 100) -> list[list[str]]:
    """Ask and tell, as many batches as are asked for; returns the overrides of all trials."""
    seen = []
    for _ in range(batches):
        asked = trials.ask(most)
        for trial in asked:
            trials.tell(trial.number, Outcome("completed", loss(trial.lines)))
        seen += [trial.lines for trial in asked]
    return seen


@pytest.mark.parametrize(
    "sampler",
    ["tpe", "random", "qmc", {"_target_": "optuna.samplers.TPESampler", "multivariate": True}],
)
def test_the_same_seed_draws_the_same_and_another_draws_others(
    tmp_path: Path, sampler: Any
) -> None:
    first = run(study(tmp_path / "a", sampler=sampler))
    assert len(first) == 8
    assert run(study(tmp_path / "b", sampler=sampler)) == first
    if sampler != "qmc":
        assert run(study(tmp_path / "c", sampler=sampler, seed=4))[0] != first[0]


def test_a_search_improves_over_its_first_trial(tmp_path: Path) -> None:
    values = [loss(lines) for lines in run(study(tmp_path / "a", trials=25))]
    assert min(values) < values[0]
    late, early = sorted(values[-10:])[5], sorted(values[:10])[5]
    assert late < early  # it learns where to look, rather than drawing on


@pytest.mark.parametrize(
    ("ended", "storage"), [(0, "journal"), (1, "journal"), (3, "journal"), (1, "sqlite")]
)
def test_a_study_continues_where_its_process_ended(
    tmp_path: Path, storage: str, ended: int
) -> None:
    whole = run(study(tmp_path / "whole", storage=storage))
    killed = study(tmp_path / "killed", storage=storage)
    seen = run(killed, batches=ended)
    (running,) = killed.ask(1)
    del killed
    again = study(tmp_path / "killed", storage=storage)
    assert again.recover({}) == [running.number]
    rest = run(again)
    assert rest[0] == running.lines  # what was running is tried again
    assert seen + rest == whole  # and the others are those of a study that nothing ended
    statuses = [row.status for row in again.rows()]
    assert statuses.count("killed") == 1
    assert statuses.count("completed") == 8
    assert again.ask(1) == []


def test_what_had_ended_before_the_kill_is_not_tried_again(tmp_path: Path) -> None:
    killed = study(tmp_path / "a")
    first, second, third = killed.ask(3)
    again = study(tmp_path / "a")
    outcomes = {first.number: Outcome("completed", 0.5), second.number: Outcome("killed", None)}
    assert again.recover(outcomes) == [second.number, third.number]
    assert [row.status for row in again.rows()] == ["completed", "killed", "killed"]
    assert again.rows()[0].value == 0.5
    assert again.counted == 1


def test_trials_that_diverge_or_fail_end_nothing(tmp_path: Path) -> None:
    trials = study(tmp_path / "a", trials=4)
    ends = [Outcome("diverged", None), Outcome("failed", None), Outcome("completed", None),
            Outcome("completed", 1.0)]  # fmt: skip
    for outcome in ends:
        (trial,) = trials.ask(1)
        trials.tell(trial.number, outcome)
    statuses = [row.status for row in trials.rows()]
    assert statuses == ["diverged", "failed", "failed", "completed"]
    assert trials.ask(1) == []
    assert trials.importances() == {}


@pytest.mark.parametrize("most", [1, 3])
def test_a_grid_has_every_point_once_and_ends(tmp_path: Path, most: int) -> None:
    trials = study(tmp_path / "a", BRANCHED, sampler="grid", trials=100)
    seen = []
    while asked := trials.ask(most):
        for trial in asked:
            seen.append(tuple(trial.lines))
            trials.tell(trial.number, Outcome("completed", 1.0))
    assert len(seen) == len(set(seen)) == 4
    assert ("kind=plain",) in seen


def test_importances_find_what_matters(tmp_path: Path) -> None:
    trials = study(tmp_path / "a", trials=30, sampler="random")
    run(trials)
    shares = trials.importances()
    assert shares["lr"] > shares["steps"]


def other_direction(folder: Path) -> None:
    study(folder, mode="max")


def other_task(folder: Path) -> None:
    study(folder, Space(("task=other",), (), SPACE.cases))


def other_choices(folder: Path) -> None:
    study(folder, Space(SPACE.fixed, (), (Case((), (Parameter("lr", "choice", ("1",)),)),)))


@pytest.mark.parametrize(
    ("change", "said"),
    [(other_direction, "monitor_mode"), (other_task, "task=toy"), (other_choices, "values of lr")],
)
def test_another_search_cannot_continue_a_study(
    tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    run(study(tmp_path / "a"), batches=1)
    with pytest.raises(UserError, match=said):
        change(tmp_path / "a")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sampler": "tpee"}, "did you mean tpe?"),
        ({"pruner": "medan"}, "did you mean median?"),
        ({"sampler": {"_target_": "optuna.samplers.GridSampler"}}, "choose grid"),
        ({"sampler": {"n": 1}}, "sweep.sampler has no class"),
        ({"pruner": {"_target_": "optuna.pruners.Nothing"}}, "optuna.pruners.Nothing"),
        ({"storage": "oracle://nowhere"}, "cannot be opened"),
        ({"storage": "sqlite:////no/such/folder/a.db"}, "cannot be opened"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        study(tmp_path / "a", **changed)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_sweeps_share_a_study_at_a_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    first = study(tmp_path / "a", storage=url, study="lr", trials=4)
    second = study(tmp_path / "b", storage=url, study="lr", trials=4)
    (running,) = first.ask(1)
    assert second.recover({}) == []  # it runs in the other sweep's folder
    assert len(run(second)) == 3
    first.tell(running.number, Outcome("completed", 1.0))
    assert first.ask(1) == []
