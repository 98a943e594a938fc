"""Changing the gradient estimator and the solver's budget and tolerance during a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from equipoise.callbacks.curve_rows import write_row
from equipoise.callbacks.lightning_overhead import Observer
from equipoise.equilibrium import Equilibrium
from equipoise.equilibrium.gradients import GradientEstimator, with_budget
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.solvers import Solver
from equipoise.errors import UserError


@dataclass(frozen=True)
class Phase:
    """A part of the run, from `start` to the start of the next phase.

    start: an int counts optimiser steps, a float in [0, 1] is a fraction of the run's steps.
    gradient: the estimator in force, None for the layer's own. max_steps: the budget of the forward
    iteration in evaluations of f, None for the configured one; an estimator with its own iteration
    takes the steps that fit into it (`with_budget`). tol: the tolerance of the forward solver, None
    for the configured one: loose while the weights still move far in a step, tight towards the end.
    """

    start: int | float
    gradient: GradientEstimator | None = None
    max_steps: int | None = None
    tol: float | None = None

    def first_step(self, total: float) -> int:
        """The optimiser step at which the phase starts in a run of `total` steps.

        Raises UserError if the start is a fraction and the run's length is not known.
        """
        if isinstance(self.start, int):
            return self.start
        if not math.isfinite(total):
            raise UserError(
                "A phase of the gradient schedule starts at a fraction of the run, but the run has "
                "no end: set trainer.max_steps or trainer.max_epochs, or give the start in steps."
            )
        return round(self.start * total)


@dataclass(frozen=True)
class Configured:
    """A layer's settings as it was built, which can be restored."""

    gradient: GradientEstimator
    solver: Solver


class GradientSchedule(Observer):
    """Apply to every equilibrium layer the phase in force at the current optimiser step.

    Before the first phase, and without phases, the configured estimator and budget apply.
    Evaluation uses the settings then in force. Checkpoints hold the index of the phase, so
    that `restore` can return a model to the phase in which its weights were trained.

    Raises UserError for a phase that starts before step 0 or beyond the run, for phases that are
    not in order, and for a tolerance with an estimator that always takes all of its steps.
    """

    def __init__(self, phases: Sequence[Phase] = ()) -> None:
        self.phases = tuple(phases)
        self.total: float = math.inf
        self.active: int | None = None
        self.starts: list[int] = []
        self.configured: dict[Equilibrium, Configured] = {}
        for phase in self.phases:
            _check_start(phase)
            if phase.gradient is not None:
                _check_tolerance(phase, phase.gradient)
        for kind in (int, float):
            _check_order([phase.start for phase in self.phases if isinstance(phase.start, kind)])

    def phase_at(self, step: int, total: float) -> int | None:
        """The index of the phase in force at a step of a run of `total` optimiser steps."""
        started = [i for i, phase in enumerate(self.phases) if phase.first_step(total) <= step]
        return started[-1] if started else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the phase of the first step; a resumed run may start in a later one."""
        if not self.phases:
            return
        self.total = trainer.estimated_stepping_batches
        self.starts = [phase.first_step(self.total) for phase in self.phases]
        # In a short run a phase may shrink to nothing; then the next one holds from the start.
        _check_order(list(dict.fromkeys(self.starts)))
        self._apply(pl_module, self.phase_at(trainer.global_step, self.total))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Enter the next phase when its first step is reached."""
        if not self._next_has_come(trainer):
            return
        write_row(trainer)  # the row of the batches before the change must not mix with those after
        self._apply(pl_module, self.phase_at(trainer.global_step, self.total))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the index of the phase in force as "gradient_phase", None before the first."""
        checkpoint["gradient_phase"] = self.active

    def restore(
        self,
        module: LightningModule,
        checkpoint: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Put the layers into the phase that the checkpoint was saved in.

        config: of the present run. If its phases differ from those of the checkpoint, for example
        because the run was resumed with another schedule, the phase at the checkpoint's step is
        used. Raises UserError if this schedule has no such phase.
        """
        index = checkpoint.get("gradient_phase")
        if config is not None and _phases_of(config) != _phases_of(checkpoint["config"]):
            index = self.phase_at(checkpoint["global_step"], self.total)
        if index is not None and index >= len(self.phases):
            raise UserError(
                f"The checkpoint was saved in phase {index + 1} of a gradient schedule, but this "
                f"configuration has {len(self.phases)}: keep the phases that it was trained with."
            )
        self._apply(module, index)

    def _next_has_come(self, trainer: Trainer) -> bool:
        upcoming = 0 if self.active is None else self.active + 1
        return upcoming < len(self.starts) and trainer.global_step >= self.starts[upcoming]

    def _apply(self, module: LightningModule, index: int | None) -> None:
        for layer in equilibrium_layers(module).values():
            configured = self.configured.setdefault(layer, Configured(layer.gradient, layer.solver))
            phase = Phase(0) if index is None else self.phases[index]
            gradient = configured.gradient if phase.gradient is None else phase.gradient
            _check_tolerance(phase, gradient)
            layer.gradient, layer.solver = gradient, configured.solver
            if phase.max_steps is not None:
                layer.gradient = with_budget(gradient, phase.max_steps)
                layer.solver = replace(layer.solver, max_steps=phase.max_steps)
            if phase.tol is not None:
                layer.solver = replace(layer.solver, tol=phase.tol)
        self.active = index


def _phases_of(config: Mapping[str, Any]) -> Any:
    """The configured phases of a run."""
    return (config["callbacks"].get("gradient_schedule") or {}).get("phases") or []


def _check_start(phase: Phase) -> None:
    if phase.start < 0 or (isinstance(phase.start, float) and not phase.start <= 1):
        raise UserError(
            f"A phase of the gradient schedule starts at {phase.start}: give a whole number of "
            "steps from 0 on, or a fraction of the run between 0.0 and 1.0."
        )


def _check_tolerance(phase: Phase, gradient: GradientEstimator) -> None:
    if phase.tol is None:
        return
    if not (math.isfinite(phase.tol) and phase.tol >= 0):
        raise UserError(
            f"A phase of the gradient schedule has the tolerance {phase.tol}: give 0 (the whole "
            "budget) or a positive number."
        )
    if gradient.own_iteration:
        raise UserError(
            f"A phase of the gradient schedule gives gradient={gradient.name} the tolerance "
            f"{phase.tol:g}, but it takes all of its steps whatever the residual: leave tol out of "
            "that phase, or set max_steps."
        )


def _check_order(starts: Sequence[int | float]) -> None:
    for earlier, later in pairwise(starts):
        if later <= earlier:
            raise UserError(
                f"The phases of the gradient schedule are out of order: one that starts at {later} "
                f"follows one that starts at {earlier}; sort them by their start."
            )
