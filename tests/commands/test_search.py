"""The plan of a search: every pair that can go together, and the settings that each has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from equipoise.commands.launchers import at_once
from equipoise.commands.search import carry_on, consecutive, open_study
from equipoise.commands.search_plan import first_job, planned, space_of, subdirectory_of_trial
from equipoise.config.search import Asked, with_search
from equipoise.errors import UserError
from tests.report.test_summary import write_job

PAIRS = ("solver=fixed_point,broyden", "gradient=neumann,shine")


def test_only_pairs_that_can_go_together_with_what_they_have() -> None:
    words = with_search(["sweep=optuna_solver", *PAIRS])
    space = space_of(words)
    settings = {case.lines: [p.name for p in case.parameters] for case in space.cases}
    assert settings == {
        ("solver=fixed_point", "gradient=neumann"): ["solver.damping", "gradient.damping"],
        ("solver=broyden", "gradient=neumann"): ["gradient.damping"],
        ("solver=broyden", "gradient=shine"): [],
    }
    (joint,) = space.groups
    assert joint.values == ("fixed_point, neumann", "broyden, neumann", "broyden, shine")
    assert first_job(words)[0] == "hydra/sweeper=equipoise"
    assert first_job(words)[-2:] == ["solver.damping=0.4", "gradient.damping=0.2"]
    named = "${hydra:runtime.choices.solver}_gradient-${hydra:runtime.choices.gradient}"
    assert subdirectory_of_trial(words) == "${hydra.job.num}_solver-" + named


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizr.lr=interval(1e-3,3e-3)"], "did you mean optimizer.lr?"),
        (["optimizer.lr=interval(-1,1)"], "optimizer.lr=-1 must be at least 0"),
        (["gradient.damping=interval(0.5,1.5)"], "gradient.damping=1.5 must be"),
        (["gradient=shine", "solver=anderson,fixed_point"], "gradient=shine"),
        (["trainer.limit_val_batches=0"], "leaves out validation"),
        (["sweep.sampler=tp"], "did you mean tpe?"),
        (["sweep.pruner=mean"], "did you mean median?"),
    ],
)
def test_what_no_trial_could_run_is_told_before_the_first(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        planned(with_search(["sweep=optuna", *words]))
    assert said in str(caught.value)


def test_a_launcher_tells_how_many_trials_run_at_once() -> None:
    basic = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    joblib = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    assert at_once(OmegaConf.create({"_target_": basic})) == 1
    assert at_once(OmegaConf.create({"_target_": joblib, "n_jobs": 3})) == 3
    assert at_once(OmegaConf.create({"_target_": joblib, "n_jobs": -1})) >= 1


def test_jobs_are_launched_under_the_numbers_of_their_trials() -> None:
    asked = [Asked(number, []) for number in (3, 4, 7, 8, 10)]
    assert [[t.number for t in batch] for batch in consecutive(asked)] == [[3, 4], [7, 8], [10]]


class Recorded:
    """A launcher that writes what jobs leave, up to one that a signal or a kill ends."""

    def __init__(self, sweep: Path, ends: dict[int, str]) -> None:
        self.sweep = sweep
        self.ends = ends
        self.launched: list[int] = []

    def __call__(self, batch: Sequence[Sequence[str]], first: int) -> None:
        for place, _ in enumerate(batch, start=first):
            self.launched.append(place)
            typed = ["sweep=optuna", "optimizer.lr=1e-3"]
            folder = write_job(self.sweep, place, str(place), typed, 1.0)
            metrics = json.loads((folder / "metrics.json").read_text())
            best = {"best_validation": {"monitor": "val/accuracy", "value": 0.5}}
            status = self.ends.get(place, "completed")
            (folder / "metrics.json").write_text(
                json.dumps({**metrics, "status": status, "details": best, "val": {}})
            )
            if status == "lost":
                (folder / "metrics.json").unlink()


@pytest.mark.parametrize(
    ("ends", "launched", "states"),
    [
        ({1: "lost"}, [0, 1, 2, 3], ["completed", "failed", "completed", "completed"]),
        ({1: "interrupted"}, [0, 1], ["completed", "running"]),
        ({0: "lost", 1: "lost"}, [0, 1], ["running", "running"]),
    ],
)
def test_a_lost_job_is_a_failed_trial_and_a_signal_ends_the_search(
    ends: dict[int, str], launched: list[int], states: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    words = with_search(["sweep=optuna", "sweep.trials=4", "sweep.at_once=2"])
    launch = Recorded(tmp_path, ends)
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "launcher": {}}})
    carry_on(launch, words, config)
    assert launch.launched == launched
    assert [row.status for row in open_study(words, tmp_path).rows()] == states
