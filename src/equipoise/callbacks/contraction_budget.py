"""The training budget of evaluations, chosen from how fast the solves of the run contract."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, distributed

from equipoise.callbacks.curve_rows import MeanColumns
from equipoise.callbacks.statistics import FiniteMean
from equipoise.equilibrium import Equilibrium, Solver, budget_for, contraction_of
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.processes import number_of_processes
from equipoise.errors import UserError


class ContractionBudget(MeanColumns):
    """Set the budget of training solves to the evaluations that the tolerance needs, as measured.

    At steps 0, every, 2 every, ... the solves of the batch keep their residuals, under a budget of
    `most`. The contraction of each sample gives the evaluations that it needs to reach the
    tolerance; from then on, the budget is what `fraction` of the samples need, plus `margin` times
    that, but at least `least` and at most `most`. Each layer of a network has its own budget; with
    several processes, it is the largest that any of them measures.

    tol: the tolerance to reach, None for the solver's; it is needed if the solver spends its whole
    budget (tol=0). most: None for the solver's max_steps. Estimators with an iteration of their own
    keep theirs, and evaluation keeps the configured budget. A checkpoint holds the budgets.

    Columns `budget/max_steps` and `budget/contraction`: the budget, and the median factor by which
    an evaluation multiplied the residual at the last measurement. metrics.json lists the changes
    under `details.contraction_budget`.

    Raises UserError for invalid settings.
    """

    prefix = "budget"

    def __init__(
        self,
        every: int = 100,
        fraction: float = 0.9,
        margin: float = 0.2,
        least: int = 4,
        most: int | None = None,
        tol: float | None = None,
    ) -> None:
        super().__init__()
        if every < 1 or least < 1 or (most is not None and most < least):
            raise UserError(
                "callbacks.contraction_budget needs every and least of at least 1, and most of at "
                "least as much as least"
            )
        if not 0 < fraction <= 1 or not margin >= 0 or (tol is not None and not tol > 0):
            raise UserError(
                "callbacks.contraction_budget needs a fraction in (0, 1], a margin of at least 0, "
                "and a tol above 0 or null"
            )
        self.every = every
        self.fraction = fraction
        self.margin = margin
        self.least = least
        self.most = most
        self.tol = tol
        self.budgets: dict[str, int] = {}
        self.factors: dict[str, float] = {}
        self.changes: list[dict[str, Any]] = []
        self.measured_at: int | None = None
        self.measuring = False
        self.replaced: dict[str, tuple[Equilibrium, Solver, Solver]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run, and refuse layers without a tolerance."""
        self.forget()
        self.budgets, self.factors, self.changes, self.measured_at = {}, {}, [], None
        super().on_train_start(trainer, pl_module)  # takes what a checkpoint has kept
        for layer in equilibrium_layers(pl_module).values():
            if self.tol is None and layer.solver.tol == 0 and not layer.gradient.own_iteration:
                raise UserError(
                    "callbacks=contraction_budget chooses the budget that a tolerance needs, and "
                    "solver.tol is 0: set callbacks.contraction_budget.tol, such as 1e-2"
                )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the budget of each layer for the batch, or start to measure it."""
        step = trainer.global_step
        self.measuring = step % self.every == 0 and step != self.measured_at
        if self.measuring:
            self.measured_at = step
        for name, layer in equilibrium_layers(pl_module).items():
            if layer.gradient.own_iteration:
                continue
            configured = layer.solver
            most = configured.max_steps if self.most is None else self.most
            budget = most if self.measuring else self.budgets.get(name, most)
            own = replace(configured, max_steps=budget, trace=configured.trace or self.measuring)
            self.replaced[name] = (layer, configured, own)
            layer.solver = own

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Restore the solvers, and choose new budgets if the batch was measured."""
        if self.measuring:
            self._choose(trainer.global_step)
        for name, (_, _, own) in self.replaced.items():
            self._note(name, own.max_steps)
        self._restore()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the solvers after a step that was cut short."""
        self._restore()
        super().on_exception(trainer, pl_module, exception)

    def observe(self, trainer: Trainer, outputs: Any) -> None:
        """Do nothing: `on_train_batch_end` has recorded the budgets already."""

    def summary(self) -> dict[str, Any]:
        """For metrics.json: the budgets, the contraction, and when they changed."""
        if not self.budgets:
            return {}
        return {
            "contraction_budget": {
                "max_steps": dict(self.budgets),
                "contraction": dict(self.factors),
                "changes": list(self.changes),
            }
        }

    def summed_up(self) -> dict[str, Any]:
        """The budgets, and the sums since the last row and of the epoch."""
        return {
            **super().summed_up(),
            "budgets": dict(self.budgets),
            "factors": dict(self.factors),
            "changes": [dict(change) for change in self.changes],
            "measured_at": self.measured_at,
        }

    def resume_from(self, state: dict[str, Any]) -> None:
        """Continue from those budgets and sums."""
        super().resume_from(state)
        self.budgets, self.factors = dict(state["budgets"]), dict(state["factors"])
        self.changes, self.measured_at = list(state["changes"]), state["measured_at"]

    def _choose(self, step: int) -> None:
        for name, (layer, configured, own) in self.replaced.items():
            trace = None if layer.report is None else layer.report.trace
            if trace is None:
                continue
            contraction = contraction_of(trace, self.tol or configured.tol)
            budget = budget_for(
                contraction.needed, self.fraction, self.margin, self.least, own.max_steps
            )
            budget, factor = _of_all_processes(budget, contraction.factor)
            if budget != self.budgets.get(name):
                change = {"step": step, "layer": name, "max_steps": budget, "contraction": factor}
                self.changes.append(change)
            self.budgets[name], self.factors[name] = budget, factor

    def _note(self, name: str, budget: int) -> None:
        self.since_row.setdefault("max_steps", FiniteMean()).add(budget)
        if name in self.factors:
            self.since_row.setdefault("contraction", FiniteMean()).add(self.factors[name])

    def _restore(self) -> None:
        for layer, configured, own in self.replaced.values():
            if layer.solver is own:  # else a schedule has put another one in force
                layer.solver = configured
        self.replaced = {}


def _of_all_processes(budget: int, factors: Tensor) -> tuple[int, float]:
    """The greatest budget and median factor of all processes, each of which must call this."""
    found = torch.tensor([float(budget), float(factors.median())], dtype=torch.float64)
    if number_of_processes() > 1:
        found = found.to(factors.device)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found[0]), float(found[1])
