"""A run as a trial of a search: it reports its validations, and ends if it is hopeless."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from equipoise.callbacks.lightning_overhead import Observer
from equipoise.errors import UserError, nearest

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.study import Study

PRUNED = "pruned"
PRUNERS = ("none", "median", "successive_halving", "hyperband")
WAIT = 60
"""Seconds that a trial waits while another one writes to an SQLite file."""


class TrialPruning(Observer):
    """Report the monitored value after each validation, and stop if the pruner says so.

    The best value of the run is that of best.ckpt; metrics.json holds it as
    `details.best_validation`. The report goes through the study's storage, so that it does not
    matter in which process the trial runs. With several processes, the first one reports and all
    follow its decision. A trial that has already ended, for example because its run is resumed by
    hand, gets no reports. The last validation cannot stop the run.

    monitor, mode: a validation metric, and "min" or "max". pruner: a name out of `PRUNERS`, or a
    pruner object. storage, study, number: where the study is stored, its name, and the number of
    the trial in it, set by the sweep for each of its jobs; without them nothing is reported.
    """

    def __init__(
        self,
        monitor: str,
        mode: str = "min",
        pruner: Any = "none",
        storage: str | None = None,
        study: str | None = None,
        number: int | None = None,
    ) -> None:
        self.monitor = monitor
        self.mode = mode
        self.pruner = pruner
        self.storage = storage
        self.study = study
        self.number = number
        self.validations = 0
        self.best: tuple[float, int] | None = None
        self.ended_by: str | None = None
        self.reporter: Reporter | None = None

    def state_dict(self) -> dict[str, Any]:
        """The validations so far, and the best of them."""
        return {
            "validations": self.validations,
            "best": None if self.best is None else [*self.best],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self.validations = state_dict["validations"]
        best = state_dict["best"]
        self.best = None if best is None else (float(best[0]), int(best[1]))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the study in the process that reports."""
        self.ended_by = None
        told = None not in (self.storage, self.study, self.number)
        if told and trainer.is_global_zero:
            self.reporter = Reporter.of(str(self.storage), str(self.study), int(self.number or 0),
                                        self.pruner)  # fmt: skip

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record and report the value, then stop all processes if the run is hopeless."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self.validations += 1
        metric = trainer.callback_metrics.get(self.monitor)
        value = math.nan if metric is None else float(metric)
        self._note(value)
        hopeless = self.reporter is not None and self.reporter.is_hopeless(value, self.validations)
        if self.storage is not None and trainer.world_size > 1:
            hopeless = trainer.strategy.broadcast(hopeless)
        if hopeless and not _is_over(trainer):
            self.ended_by = PRUNED
            trainer.should_stop = True

    def summary(self) -> Mapping[str, Any]:
        """The best validation, for `details` in metrics.json."""
        if self.best is None:
            return {}
        value, validation = self.best
        return {
            "best_validation": {"monitor": self.monitor, "value": value, "validation": validation}
        }

    @property
    def sentence(self) -> str:
        """Why the run was ended."""
        return f"the pruner of the search gave up on its {self.monitor}"

    def _note(self, value: float) -> None:
        sign = -1.0 if self.mode == "max" else 1.0
        better = self.best is None or sign * value <= sign * self.best[0]
        if math.isfinite(value) and better:  # the later of equals, as in best.ckpt
            self.best = (value, self.validations)


def _is_over(trainer: Trainer) -> bool:
    """Whether the run ends with this validation anyway."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    whole = trainer.fit_loop.epoch_loop._num_ready_batches_reached()
    last_epoch = epochs is not None and 0 < epochs <= trainer.current_epoch + 1 and whole
    return last_epoch or 0 < steps <= trainer.global_step


class Reporter:
    """One running trial of a study, seen from the process in which it runs."""

    def __init__(self, study: Study, storage: BaseStorage, trial: int) -> None:
        self.study = study
        self.storage = storage
        self.trial = trial

    @classmethod
    def of(cls, place: str, name: str, number: int, pruner: Any) -> Reporter | None:
        """The trial of this number; None if it does not exist or has ended."""
        if not _is_there(place):  # resumed elsewhere, perhaps without Optuna
            return None
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = open_storage(place)
        try:
            identity = storage.get_study_id_from_name(name)
            trial = storage.get_trial_id_from_study_id_trial_number(identity, number)
        except KeyError:
            return None
        if storage.get_trial(trial).state.is_finished():
            return None
        study = optuna.load_study(study_name=name, storage=storage, pruner=pruner_of(pruner))
        return cls(study, storage, trial)

    def is_hopeless(self, value: float, step: int) -> bool:
        """Report the value of the step-th validation, and ask the pruner."""
        if not math.isfinite(value):  # the guard and the end of the run handle that
            return False
        self.storage.set_trial_intermediate_value(self.trial, step, value)
        return self.study.pruner.prune(self.study, self.storage.get_trial(self.trial))


def _is_there(place: str) -> bool:
    """Whether the file of a study exists; True for other storage, where only opening it tells."""
    path = place.removeprefix("sqlite:///")
    return "://" in path or Path(path).is_file()


def open_storage(place: str) -> BaseStorage:
    """The storage of a study: a journal if a path is given, else the one that a URL names."""
    from optuna.storages import JournalStorage, RDBStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    if "://" not in place:
        return JournalStorage(JournalFileBackend(place))
    if place.startswith("sqlite"):
        return get_storage(RDBStorage(place, engine_kwargs={"connect_args": {"timeout": WAIT}}))
    return get_storage(place)


def pruner_of(pruner: Any) -> BasePruner:
    """The pruner of that name, or the pruner given. Raises UserError for an unknown name."""
    from optuna import pruners

    if isinstance(pruner, pruners.BasePruner):
        return pruner
    named: dict[str, type[BasePruner]] = {
        "none": pruners.NopPruner,
        "median": pruners.MedianPruner,
        "successive_halving": pruners.SuccessiveHalvingPruner,
        "hyperband": pruners.HyperbandPruner,
    }
    if pruner not in named:
        hint = nearest(str(pruner), PRUNERS) or f"; choose {', '.join(PRUNERS)}"
        raise UserError(f"there is no sweep.pruner={pruner}{hint}")
    return named[pruner]()
