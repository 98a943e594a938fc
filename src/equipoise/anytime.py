"""The anytime curve: what a trained equilibrium network gives with how many evaluations of f."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch

from equipoise import results
from equipoise.callbacks import ConvergenceMonitor
from equipoise.callbacks.first_solutions import FirstSolutions, agreement
from equipoise.equilibrium import (
    Equilibrium,
    StartRule,
    mixed_start,
    with_budget,
    zero_start,
)
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.errors import UserError

Start = Literal["zero", "random", "model"]


@dataclass(frozen=True)
class Point:
    """What one budget gives from one start.

    metrics: of the test by name. nfe: evaluations per batch. residual_median, residual_p95: over
    the test samples, None where the estimator's own iteration measures none. alignment, distance:
    mean cosine and median relative distance between the solutions of the first test batch and
    those from the first start at the same budget; None for that start itself.
    """

    start: str
    budget: int
    metrics: Mapping[str, float]
    nfe: float
    residual_median: float | None
    residual_p95: float | None
    alignment: float | None
    distance: float | None
    seconds: float

    def row(self) -> dict[str, Any]:
        """The point as a row of a table."""
        values = {name: value for name, value in vars(self).items() if name != "metrics"}
        return {
            "start": values.pop("start"),
            "budget": values.pop("budget"),
            **self.metrics,
        } | values


@dataclass(frozen=True)
class AnytimeCurve:
    """Test with every budget from every start; where the starts agree, f is path independent.

    budgets: evaluations of f, all of which are spent (tolerance 0), so that the curve shows what
    each further one brings; the steps of an estimator with an iteration of its own follow. starts:
    "zero", "random" (standard normal, the same for every budget), and "model", as the model gives
    it. seed: of the random start.

    Raises ValueError for budgets below 1 and unknown or missing starts.
    Source: Anil et al. 2022 (arXiv 2211.09961), whose alignment score `Point.alignment` is.
    """

    budgets: Sequence[int] = (4, 6, 8, 12, 16, 24, 32, 48, 64)
    starts: Sequence[Start] = ("zero", "random")
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError("anytime.budgets needs at least one budget, each of 1 or more")
        if not self.starts or set(self.starts) - {"zero", "random", "model"}:
            raise ValueError(f"anytime.starts takes zero, random and model, not {self.starts}")

    def __len__(self) -> int:
        """The number of points."""
        return len(self.budgets) * len(self.starts)

    def points(
        self, trainer: pl.Trainer, task: pl.LightningModule, data: pl.LightningDataModule
    ) -> Iterator[Point]:
        """One test after the other, budget by budget; afterwards the layers are as before.

        The trainer's callbacks and loggers see nothing of it. Raises UserError for a network
        without an equilibrium layer.
        """
        layers = equilibrium_layers(task)
        if not layers:
            raise UserError("the anytime curve needs a network with an equilibrium layer")
        for budget in self.budgets:
            first: FirstSolutions | None = None
            for start in self.starts:
                monitor, solutions, began = ConvergenceMonitor(), FirstSolutions(), time.monotonic()
                rule = self._rule(start, trainer.global_rank)
                watching: list[pl.Callback] = [monitor, solutions]
                with _set_up(list(layers.values()), budget, rule), _watched_by(trainer, watching):
                    trainer.test(task, datamodule=data, verbose=False)
                seconds = round(time.monotonic() - began, 2)
                metrics = results.by_stage(trainer.callback_metrics, "test")
                alignment, distance = agreement(solutions, first) if first else (None, None)
                solved = _solved(monitor)
                yield Point(start, budget, metrics, *solved, alignment, distance, seconds)
                first = first or solutions

    def _rule(self, start: Start, rank: int) -> StartRule | None:
        if start == "model":
            return None
        if start == "zero":
            return zero_start
        generator = torch.Generator().manual_seed(self.seed + rank)
        return partial(mixed_start, noise_fraction=1.0, generator=generator)


def _solved(monitor: ConvergenceMonitor) -> tuple[float, float | None, float | None]:
    """Evaluations per batch, median and 95th percentile of the residuals."""
    summary = monitor.summary("test")
    if summary is None:
        raise UserError("the anytime curve needs a test in which an equilibrium layer is used")
    return summary["nfe_mean"], summary["residual_median"], summary["residual_p95"]


@contextmanager
def _set_up(layers: Sequence[Equilibrium], budget: int, rule: StartRule | None) -> Iterator[None]:
    """Give the layers a budget for evaluation and a start, and then what they had."""
    own = [(layer, layer.eval_solver, layer.gradient, layer.start) for layer in layers]
    try:
        for layer in layers:
            solver = layer.solver if layer.eval_solver is None else layer.eval_solver
            layer.eval_solver = replace(solver, max_steps=budget, tol=0.0)
            layer.gradient = with_budget(layer.gradient, budget)
            layer.start = rule
        yield
    finally:
        for layer, solver_before, gradient, start in own:
            layer.eval_solver, layer.gradient, layer.start = solver_before, gradient, start


@contextmanager
def _watched_by(trainer: pl.Trainer, callbacks: list[pl.Callback]) -> Iterator[None]:
    """Let only these callbacks see what the trainer does."""
    changed = cast(Any, trainer)
    own = changed.callbacks, changed.loggers
    changed.callbacks, changed.loggers = callbacks, []
    try:
        yield
    finally:
        changed.callbacks, changed.loggers = own
