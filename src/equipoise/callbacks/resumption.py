"""Resuming a run: the position in the data, and changes of the optimiser or the schedule."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from equipoise.callbacks.lightning_overhead import Observer

KEY = "training_position"
LENGTH = "steps_of_the_run"


STARTS_AFRESH = ("amsgrad",)
"""Settings that need state which an optimiser without them has not kept."""
RATES = ("lr", "bias_lr")
OF_THE_SCHEDULE = ("params", "lr", "initial_lr")
"""Entries of a group that are not settings, or that the schedule determines."""
OF_A_PLATEAU = ("factor", "patience")
"""Settings that a schedule which follows the validation can change without starting afresh."""
Counts = dict[str, int]


class Position(NamedTuple):
    """`epoch` whole epochs, and `batch` batches of the next one."""

    epoch: int
    batch: int


@runtime_checkable
class Resumable(Protocol):
    """A loader that can begin in the middle of an epoch."""

    def go_to(self, epoch: int, batch: int) -> None:
        """Let the next iteration of that epoch begin after `batch` of its batches."""
        ...


def position(trainer: Trainer) -> Position:
    """Where training stands.

    Lightning closes an epoch even if `max_steps` or `max_time` has cut it short; here such an epoch
    is still the present one.
    """
    epochs, batches = _counts(trainer)
    batch = batches["processed"]
    if epochs["processed"] < epochs["started"]:
        return Position(epochs["processed"], batch)
    if 0 < batch < trainer.num_training_batches:
        return Position(epochs["processed"] - 1, batch)
    return Position(epochs["processed"], 0)


class TrainingPosition(Observer):
    """Saves the epoch and batch that training has reached, and resumes with the next batch.

    By itself, Lightning restores the position of a loader only if the length of the run was not
    requested before, and takes an epoch that was cut short for a whole one. So the counters of its
    loops are written into a checkpoint in the one form that it always reads correctly, and the
    loaders are moved to their position once everything has been built. A validation that was due
    but had not run comes first; the gradients of an unfinished accumulation (with one process) and
    the metrics of the last validation are kept. A task whose `resumes_within_epoch` is False goes
    back to the beginning of its epoch.
    """

    def __init__(self) -> None:
        self.validated: Position | None = None
        self.loaded: dict[str, Any] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the position at which a validation has run."""
        if not trainer.sanity_checking:
            self.validated = position(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the position, and write the counters of the loops that belong to it."""
        place = position(trainer)
        if not getattr(pl_module, "resumes_within_epoch", True):
            place = Position(place.epoch, 0)
        checkpoint[KEY] = {
            **place._asdict(),
            "validated": self.validated == place,
            "gradients": _accumulated(trainer, pl_module) if place.batch else {},
            "metrics": {name: value.cpu() for name, value in trainer.callback_metrics.items()},
        }
        counters = checkpoint["loops"]["fit_loop"]
        _write_counters(counters, place, place.batch == trainer.num_training_batches)
        counters["epoch_loop.state_dict"]["_batches_that_stepped"] = _stepped(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what was saved until training starts."""
        self.loaded = checkpoint.get(KEY)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the metrics of the last validation, even if nothing is left to train."""
        if self.loaded is not None:
            trainer._logger_connector._callback_metrics.update(self.loaded["metrics"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the loaders to the position, and arrange a validation that was due there."""
        if self.loaded is None:
            return
        loaded, self.loaded = self.loaded, None
        place = Position(loaded["epoch"], loaded["batch"])
        self.validated = place if loaded["validated"] else None
        _send_loaders(trainer, place)
        _restore_gradients(pl_module, loaded["gradients"])
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if not place.batch:
            loop.restarting = False  # a new epoch begins as any other
        elif loop._should_check_val_fx(fetcher):
            # Lightning will go straight to the end of this batch, and count its step once more.
            loop._batches_that_stepped -= not loop._should_accumulate()
            if not loaded["validated"]:
                loop.val_loop._restart_stage = "restarted_mid_evaluation"
        elif place.batch >= trainer.num_training_batches:
            loop.val_loop._has_run = True  # no validation is pending

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the next epoch begin as any other, even after one that had no batch left."""
        trainer.fit_loop.epoch_loop.on_iteration_done()


def _counts(trainer: Trainer) -> tuple[Counts, Counts]:
    """Lightning's counts of epochs, and of the batches of the latest one."""
    fit = trainer.fit_loop
    epochs, batches = fit.epoch_progress.current, fit.epoch_loop.batch_progress.current
    return epochs.state_dict(), batches.state_dict()


def _send_loaders(trainer: Trainer, place: Position) -> None:
    """Move the loaders, from which no batch has been requested yet, to a position."""
    fit = trainer.fit_loop
    fit._last_train_dl_reload_epoch = place.epoch  # the loaders were just made
    assert fit._combined_loader is not None
    for loader in fit._combined_loader.flattened:
        if isinstance(loader, Resumable):
            loader.go_to(*place)


def _write_counters(counters: dict[str, Any], place: Position, is_last_batch: bool) -> None:
    """Write Lightning's counters as they are after a whole batch or a whole epoch."""
    begun = place.epoch + (place.batch > 0)
    epochs = {"ready": begun, "started": begun, "processed": place.epoch, "completed": place.epoch}
    counters["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
    trained = counters["epoch_loop.batch_progress"]["total"]["processed"]
    counters["epoch_loop.batch_progress"] = {
        "total": _all_at(trained),
        "current": _all_at(place.batch),
        "is_last_batch": is_last_batch,
    }
    validation = {"total": _all_at(0), "current": _all_at(0), "is_last_batch": False}
    counters["epoch_loop.val_loop.batch_progress"] = validation
    counters["state_dict"].pop("combined_loader", None)  # must not be restored


def _all_at(number: int) -> Counts:
    return dict.fromkeys(("ready", "started", "processed", "completed"), number)


def _stepped(trainer: Trainer) -> int:
    """The step number that Lightning logs next; it increases after a batch's last hook."""
    loop = trainer.fit_loop.epoch_loop
    epochs, batches = _counts(trainer)
    within = epochs["processed"] < epochs["started"]
    in_a_batch = within and 0 < batches["processed"] == batches["ready"]
    return int(loop._batches_that_stepped + (in_a_batch and not loop._should_accumulate()))


def _accumulated(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """The gradients accumulated so far for the next optimiser step."""
    if trainer.world_size > 1 or not trainer.fit_loop._should_accumulate():
        return {}
    named = ((name, parameter.grad) for name, parameter in module.named_parameters())
    return {name: gradient for name, gradient in named if gradient is not None}


def _restore_gradients(module: LightningModule, gradients: dict[str, Tensor]) -> None:
    parameters = dict(module.named_parameters())
    for name in gradients.keys() & parameters.keys():
        parameters[name].grad = gradients[name].to(parameters[name].device)


class ResumedOptimizer(Observer):
    """Applies hyper-parameters that differ from the checkpoint's to the restored optimiser.

    A checkpoint holds the optimiser's hyper-parameters beside its moments, and the schedule's rate
    beside its step, and both would replace the present settings. Moments are kept, but another
    class of optimiser, which cannot use them, starts without any, with a warning. If the rate or
    the schedule differs, the new schedule continues as if it had applied from the first step; only
    one that follows the validation keeps its history when its patience or factor changes. If the
    length of the run differs, its schedule has the new length from the first step on. If nothing
    has changed, nothing is touched.

    optimizer, schedule: the configurations with which the run is resumed.
    """

    def __init__(self, optimizer: Mapping[str, Any], schedule: Mapping[str, Any]) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.steps: int | None = None
        self.length: float | None = None
        self.states: list[dict[str, Any]] = []

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the number of steps of the whole run, on which its schedule depends."""
        checkpoint[LENGTH] = float(trainer.estimated_stepping_batches)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Change what Lightning is about to restore."""
        self.length = checkpoint.get(LENGTH)
        config = checkpoint.get("config") or {}
        before, schedule = config.get("optimizer") or {}, config.get("schedule") or {}
        changed = {k: v for k, v in self.optimizer.items() if before.get(k) != v}
        if not before or not self.optimizer or not (changed or schedule != self.schedule):
            return
        if "_target_" in changed or any(changed.get(name) for name in STARTS_AFRESH):
            checkpoint["optimizer_states"] = []
            if trainer.is_global_zero:
                warnings.warn(
                    f"the checkpoint's state of {_name(before)} does not fit "
                    f"{_name(self.optimizer)}{_settings(changed)}, which starts afresh, without "
                    "moments",
                    stacklevel=2,
                )
        self.states = checkpoint.get("optimizer_states", [])
        other_rate = bool(changed.keys() & {*RATES, "_target_"})
        other = {k: v for k, v in self.schedule.items() if schedule.get(k) != v}
        if not other_rate and other and other.keys() <= set(OF_A_PLATEAU) and "monitor" in schedule:
            for state in checkpoint["lr_schedulers"]:
                state.update(other)
        elif other_rate or schedule != self.schedule:
            checkpoint["lr_schedulers"] = []
            self.steps = int(checkpoint["global_step"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the settings of each group from the new optimiser, which is not restored yet.

        Groups may differ in a setting: weight decay applies to weights but not to biases.
        """
        for optimizer, state in zip(trainer.optimizers, self.states, strict=False):
            for new, group in zip(optimizer.param_groups, state["param_groups"], strict=False):
                settings = new.keys() & group.keys() - set(OF_THE_SCHEDULE)
                group.update({name: new[name] for name in settings})
        self.states = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Advance a new schedule, or one of another length, to the step of the run."""
        length, self.length = self.length, None
        other_length = length not in (None, float(trainer.estimated_stepping_batches))
        for config in trainer.lr_scheduler_configs:
            if self.steps is not None:
                _bring_to(config.scheduler, self.steps)
            elif other_length and isinstance(config.scheduler, LambdaLR):
                _set_rates(config.scheduler)
        self.steps = None


def _bring_to(scheduler: Any, steps: int) -> None:
    """Step a scheduler as often as the run has stepped, from its initial rates."""
    groups = scheduler.optimizer.param_groups
    for group, rate, first in zip(groups, scheduler.base_lrs, scheduler.get_last_lr(), strict=True):
        group["initial_lr"], group["lr"] = rate, first
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*lr_scheduler.step.*before.*optimizer.step.*")
        for _ in range(steps):
            scheduler.step()


def _set_rates(scheduler: LambdaLR) -> None:
    """Set the rates of the scheduler's present step, in place of those Lightning has restored."""
    step, bases, factors = scheduler.last_epoch, scheduler.base_lrs, scheduler.lr_lambdas
    rates = [base * factor(step) for base, factor in zip(bases, factors, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def _name(optimizer: Mapping[str, Any]) -> str:
    return str(optimizer.get("_target_", "")).rpartition(".")[2]


def _settings(changed: Mapping[str, Any]) -> str:
    named = [f"{name}={changed[name]}" for name in STARTS_AFRESH if changed.get(name)]
    return f" with {', '.join(named)}" if named else ""
