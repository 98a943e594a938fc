"""The study of a search: Optuna's trials, each of which is one job of a multirun.

Optuna is asked for a trial, a launcher runs its job, and the result in the job's folder is reported
to Optuna. Everything reported is in the storage, so that a study can be resumed however its
process ended.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.callbacks.trial_pruning import open_storage
from equipoise.config.search import (
    COMPLETED,
    DIVERGED,
    FAILED,
    PRUNED,
    Asked,
    Outcome,
    Search,
    storage_place,
    study_name,
)
from equipoise.config.search_space import Space
from equipoise.errors import UserError
from equipoise.report.search import TrialRow
from equipoise.running.sampling import (
    distribution,
    pruner_for,
    sampler_for,
    suggested,
    usable,
)

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

FIXED = "fixed"
"""The attribute of a study with the overrides that all its jobs share."""
FOLDER, REPEATED = "folder", "killed"
"""Attributes of a trial: the sweep that runs it, and that its process was killed."""


class TrialStudy:
    """The trials of a search in a folder: asks Optuna for them and reports their results.

    direction: "min" or "max". Raises UserError where the storage, the sampler or the pruner cannot
    be used, and where the study in the storage is another one.
    """

    def __init__(self, search: Search, space: Space, direction: str, directory: Path) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search, self.space, self.directory = search, space, directory
        self.batch = 1
        self.grid = list(space.points()) if search.sampler == "grid" else None
        self.place = storage_place(search, directory)
        self.name = study_name(search, directory)
        pruner, sampler = pruner_for(search), sampler_for(search, 0, 1)
        with usable(self.place):
            self.storage = open_storage(self.place)
            self.study = optuna.create_study(
                storage=self.storage, study_name=self.name, load_if_exists=True,
                sampler=sampler, pruner=pruner,
                direction="maximize" if direction == "max" else "minimize",
            )  # fmt: skip
        self._check_same(direction)

    def ask(self, most: int) -> list[Asked]:
        """The next trials; none where the study has its full number."""
        asked: list[Asked] = []
        self.batch = most
        while len(asked) < most and self.counted < self.search.trials:
            trial = self._next()
            if trial is None:
                break
            trial.set_user_attr(FOLDER, self._mark)
            lines = self.space.draw(lambda parameter: suggested(trial, parameter))  # noqa: B023
            asked.append(Asked(trial.number, lines))
        return asked

    def tell(self, number: int, outcome: Outcome) -> None:
        """Report the outcome of a trial: divergence is the worst value, a failure carries none."""
        from optuna.trial import TrialState

        if outcome.status == COMPLETED and outcome.value is not None:
            self.study.tell(number, outcome.value)
        elif outcome.status in (PRUNED, DIVERGED):
            self._note(number, "status", outcome.status)
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, state=TrialState.FAIL)

    def recover(self, outcomes: Mapping[int, Outcome]) -> list[int]:
        """After an interruption, report the trials that had ended, and queue the rest again.

        outcomes: those of the jobs in the folder. Returns the numbers of the trials that will be
        repeated; they no longer count.
        """
        from optuna.trial import TrialState

        repeated = []
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            if not self._is_ours(trial):
                continue
            outcome = outcomes.get(trial.number)
            if outcome is not None and outcome.ended:
                self.tell(trial.number, outcome)
                continue
            self._note(trial.number, REPEATED, True)
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.params)
            repeated.append(trial.number)
        return repeated

    @property
    def counted(self) -> int:
        """The trials that count: those that ended by themselves or are running, wherever."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        return sum(t.state != TrialState.WAITING and not t.user_attrs.get(REPEATED) for t in trials)

    @property
    def unfinished(self) -> bool:
        """Whether any trials are yet to run or to end; a grid may have fewer than planned.

        Those of another sweep at the same URL count as well.
        """
        trials = self.study.get_trials(deepcopy=False)
        if any(not trial.state.is_finished() for trial in trials):
            return True
        if self.grid is not None and all(p in [t.params for t in trials] for p in self.grid):
            return False
        return self.counted < self.search.trials

    def rows(self) -> list[TrialRow]:
        """All trials except waiting ones."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        return [
            TrialRow(t.number, _status(t), t.value, dict(t.params))
            for t in trials
            if t.state != TrialState.WAITING
        ]

    def importances(self) -> dict[str, float]:
        """The share of the value's variance that each parameter explains; empty where unknown."""
        import optuna

        completed = [optuna.trial.TrialState.COMPLETE]
        trials = self.study.get_trials(deepcopy=False, states=completed)
        values = {trial.value for trial in trials}
        of_all = set.intersection(*(set(t.params) for t in trials)) if trials else set()
        varied = [n for n in sorted(of_all) if len({str(t.params[n]) for t in trials}) > 1]
        if len(trials) < 4 or len(values) < 2 or len(varied) < 2:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(self.study, params=varied)
        return {name: float(share) for name, share in found.items()}

    def _next(self) -> optuna.Trial | None:
        """A new trial, at the next point of a grid; trials to be repeated come first."""
        from optuna.trial import TrialState

        self.study.sampler = sampler_for(self.search, self.counted, self.batch)
        trials = self.study.get_trials(deepcopy=False)
        waits = any(trial.state == TrialState.WAITING for trial in trials)
        if self.grid is not None and not waits:
            seen = [trial.params for trial in trials]
            point = next((point for point in self.grid if point not in seen), None)
            if point is None:
                return None
            self.study.enqueue_trial(point)
        return self.study.ask()

    @property
    def _mark(self) -> str:
        return str(self.directory.resolve())

    def _is_ours(self, trial: FrozenTrial) -> bool:
        """Whether this sweep runs a trial: all in its folder, those of its own at a URL."""
        return "://" not in self.search.storage or trial.user_attrs.get(FOLDER) == self._mark

    def _note(self, number: int, key: str, value: Any) -> None:
        study = self.storage.get_study_id_from_name(self.name)
        trial = self.storage.get_trial_id_from_study_id_trial_number(study, number)
        self.storage.set_trial_user_attr(trial, key, value)

    def _check_same(self, direction: str) -> None:
        """Raise UserError where the study in the storage is of another search."""
        other = f"the study {self.name} in {self.place} was begun with other"
        advice = "give the same, or choose another folder or sweep.study"
        if not self.study.direction.name.lower().startswith(direction):
            raise UserError(f"{other} values of task.monitor_mode than {direction}: {advice}")
        lines = [line.lstrip("+") for line in self.space.fixed]
        fixed = [line for line in lines if not line.startswith("sweep.")]
        known = self.study.user_attrs.get(FIXED)
        if known is None:
            self.study.set_user_attr(FIXED, fixed)
        elif known != fixed:
            differ = [line for line in [*known, *fixed] if (line in known) is not (line in fixed)]
            raise UserError(
                f"{other} settings ({differ[0] if differ else 'their order'}): {advice}"
            )
        self._check_values(other, advice)

    def _check_values(self, other: str, advice: str) -> None:
        """Raise UserError where a trial was drawn from other choices than the present ones."""
        from optuna.distributions import check_distribution_compatibility

        space = self.space.parameters
        for trial in self.study.get_trials(deepcopy=False):
            for name, drawn_from in trial.distributions.items():
                if name not in space:
                    continue
                try:
                    check_distribution_compatibility(drawn_from, distribution(space[name]))
                except ValueError as error:
                    raise UserError(f"{other} values of {name}: {advice}") from error


def _status(trial: FrozenTrial) -> str:
    """The trial's status in the summary."""
    if trial.user_attrs.get(REPEATED):
        return REPEATED
    words = {"COMPLETE": COMPLETED, "PRUNED": PRUNED, "FAIL": FAILED}
    return str(trial.user_attrs.get("status") or words.get(trial.state.name, "running"))
