"""The anytime curve: the results of a trained network by its number of evaluations of f."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equipoise.callbacks import ConvergenceMonitor
from equipoise.callbacks.lightning_overhead import Observer
from equipoise.equilibrium import (
    Equilibrium,
    StartRule,
    mixed_start,
    with_budget,
    zero_start,
)
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.state import Layout, State
from equipoise.errors import UserError
from equipoise.report import anytime as report
from equipoise.report.anytime import Point
from equipoise.running.parts import Reporting, Run
from equipoise.running.results import Results, by_stage


class FirstSolutions(Observer):
    """Keep what each equilibrium layer returns on the first batch of a test: name to (B, D).

    For a layer that a batch uses several times, the first solution counts.
    """

    def __init__(self) -> None:
        self.states: dict[str, Tensor] = {}
        self.hooks: list[RemovableHandle] = []

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Listen to the layers."""
        if batch_idx == 0 and dataloader_idx == 0:
            layers = equilibrium_layers(pl_module).items()
            self.hooks = [
                layer.register_forward_hook(partial(self._keep, n)) for n, layer in layers
            ]

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Listen no more."""
        self._close()

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        """Listen no more where the test was cut short."""
        self._close()

    def _keep(self, name: str, layer: nn.Module, arguments: Any, state: State) -> None:
        self.states.setdefault(name, Layout.of(state).flatten(state).detach())

    def _close(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []


def agreement(first: FirstSolutions, second: FirstSolutions) -> tuple[float, float]:
    """Mean cosine, and median |a - b| / |b|, over the samples and layers of two tests."""
    pairs = [(state, second.states[name]) for name, state in first.states.items()]
    cosines = torch.cat([torch.cosine_similarity(a, b, dim=1) for a, b in pairs])
    distances = torch.cat([(a - b).norm(dim=1) / b.norm(dim=1) for a, b in pairs])
    return cosines.mean().item(), distances.median().item()


Start = Literal["zero", "random", "model"]


@dataclass(frozen=True)
class AnytimeCurve:
    """Test with every budget from every start; where the starts agree, f is path independent.

    budgets: evaluations of f, all of which are spent (tolerance 0), so that the curve shows the
    effect of each further one; the steps of an estimator's own iteration follow. starts:
    "zero", "random" (standard normal, the same for every budget), and "model", the model's own
    start. seed: that of the random start.

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
        """Run one test after another, budget by budget; afterwards the layers are as before.

        The trainer's callbacks and loggers do not see these tests. Raises UserError for a network
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
                metrics = by_stage(trainer.callback_metrics, "test")
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
    summary = monitor.solver_stats("test")
    if summary is None:
        raise UserError("the anytime curve needs a test in which an equilibrium layer is used")
    return summary["nfe_mean"], summary["residual_median"], summary["residual_p95"]


@contextmanager
def _set_up(layers: Sequence[Equilibrium], budget: int, rule: StartRule | None) -> Iterator[None]:
    """Give the layers an evaluation budget and a start, and restore their own afterwards."""
    before = [(layer, layer.eval_solver, layer.gradient, layer.start) for layer in layers]
    try:
        for layer in layers:
            solver = layer.solver if layer.eval_solver is None else layer.eval_solver
            layer.eval_solver = replace(solver, max_steps=budget, tol=0.0)
            layer.gradient = with_budget(layer.gradient, budget)
            layer.start = rule
        yield
    finally:
        for layer, eval_solver, gradient, start in before:
            layer.eval_solver, layer.gradient, layer.start = eval_solver, gradient, start


@contextmanager
def _watched_by(trainer: pl.Trainer, callbacks: list[pl.Callback]) -> Iterator[None]:
    """Let the trainer call only these callbacks."""
    changed = cast(Any, trainer)
    before = changed.callbacks, changed.loggers
    changed.callbacks, changed.loggers = callbacks, []
    try:
        yield
    finally:
        changed.callbacks, changed.loggers = before


def trace_anytime(run: Run, curve: AnytimeCurve, results: Results) -> None:
    """Measure the anytime curve; each point adds a row to anytime.csv and prints a line."""
    metric = report.shown_metric(results.test, monitored(run.trainer))
    points: list[Point] = []
    try:
        for point in curve.points(run.trainer, run.task, run.data):
            points.append(point)
            results.details["anytime"] = [earlier.row() for earlier in points]
            if run.trainer.is_global_zero:
                print(report.line(point, metric, len(points), len(curve)), flush=True)
                report.write_table(points, run.directory / "anytime.csv")
    finally:
        if points and run.trainer.is_global_zero:
            show_anytime(run, points, metric)


def show_anytime(run: Run, points: Sequence[Point], metric: str) -> None:
    """Draw the curve, and show it on the report's page."""
    page = next((c for c in run.callbacks if isinstance(c, Reporting)), None)
    folder = run.directory / "report" if page is None else page.dirpath
    layer = next(iter(equilibrium_layers(run.task).values()))
    picture = report.draw(points, metric, (layer.eval_solver or layer.solver).stop, folder)
    if page is not None:
        page.add(picture)


def monitored(trainer: pl.Trainer) -> str | None:
    """The metric that the run's checkpoints monitor, such as val/accuracy."""
    names = [getattr(callback, "monitor", None) for callback in trainer.checkpoint_callbacks]
    return next((name for name in names if name), None)
