"""A resumed run obeys the optimiser and the schedule that it is resumed with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.observers import Observer

STARTS_AFRESH = ("amsgrad",)
"""Settings without which an optimiser has not kept what it needs with them."""


class ResumedOptimizer(Observer):
    """Puts hyper-parameters that differ from the checkpoint's into the optimiser it restores.

    A checkpoint carries the optimiser's hyper-parameters beside its moments, and the schedule's
    rate beside its step, and both would replace what was typed. Moments stay; another class of
    optimiser, to which they mean nothing, starts with none, and a warning says so. The schedule is
    then the new one from its beginning, at the step that the run has reached. Where nothing has
    changed, nothing is touched.

    optimizer, schedule: the configurations that the run is resumed with.
    """

    def __init__(self, optimizer: Mapping[str, Any], schedule: Mapping[str, Any]) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.steps: int | None = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Change what Lightning is about to restore."""
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
        for state in checkpoint.get("optimizer_states", []):
            for group in state["param_groups"]:
                group.update({k: v for k, v in changed.items() if k in group})
        if "lr" in changed or "_target_" in changed or schedule != self.schedule:
            checkpoint["lr_schedulers"] = []
            self.steps = int(checkpoint["global_step"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the new schedule to the step of the run."""
        if self.steps is None:
            return
        for config in trainer.lr_scheduler_configs:
            _bring_to(config.scheduler, self.steps)
        self.steps = None


def _bring_to(scheduler: Any, steps: int) -> None:
    """Step a scheduler as often as the run has stepped, from the rates that it begins with."""
    groups = scheduler.optimizer.param_groups
    for group, rate, first in zip(groups, scheduler.base_lrs, scheduler.get_last_lr(), strict=True):
        group["initial_lr"], group["lr"] = rate, first
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*lr_scheduler.step.*before.*optimizer.step.*")
        for _ in range(steps):
            scheduler.step()


def _name(optimizer: Mapping[str, Any]) -> str:
    return str(optimizer.get("_target_", "")).rpartition(".")[2]


def _settings(changed: Mapping[str, Any]) -> str:
    named = [f"{name}={changed[name]}" for name in STARTS_AFRESH if changed.get(name)]
    return f" with {', '.join(named)}" if named else ""
