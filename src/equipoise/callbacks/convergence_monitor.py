"""What the solvers did: evaluations, residuals and convergence of every equilibrium layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from equipoise.callbacks.curve_rows import CurveSource, Row, write_row
from equipoise.callbacks.statistics import Accumulator, SolveStatistics, number
from equipoise.equilibrium import Equilibrium, SolveReport
from equipoise.equilibrium.layer import equilibrium_layers

ENOUGH = 0.5
"""The share of converged test samples below which a warning is shown."""


class LayerStatistics(Accumulator):
    """Forward and backward statistics of one layer, or of several merged."""

    def __init__(self) -> None:
        self.forward = SolveStatistics()
        self.backward = SolveStatistics()

    def add(self, report: SolveReport) -> None:
        """Add the report of one batch, and that of its backward pass if one has run."""
        self.forward.add(report)
        if report.backward is not None:
            self.backward.add(report.backward)

    def absorb(self, other: LayerStatistics) -> None:
        """Add everything that `other` has seen."""
        self.forward.absorb(other.forward)
        self.backward.absorb(other.backward)


Statistics = dict[str, LayerStatistics]
"""Layer name to its statistics."""


class ConvergenceMonitor(CurveSource):
    """Write `solver/…`, `backward/…` and `gradient` columns, and sum up each stage.

    After every batch, references to the reports of the layers are stored; only the writing of a row
    waits for the device. A change of the gradient estimator adds a row. Without equilibrium layers
    the monitor does nothing. With several processes, the numbers cover the first one's share of the
    data.
    """

    def __init__(self) -> None:
        self.layers: dict[str, Equilibrium] = {}
        self.seen: dict[str, SolveReport] = {}
        self.since_row: Statistics = {}
        self.epoch: Statistics = {}
        self.stages: dict[str, Statistics] = {}
        self.gradient: str | None = None
        self.warned = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers and forget an earlier run."""
        self.layers = equilibrium_layers(pl_module)
        self.since_row, self.epoch, self.gradient = {}, {}, None
        self.stages.pop("train", None)
        super().on_train_start(trainer, pl_module)

    def summed_up(self) -> dict[str, Any]:
        """The statistics since the last row, of this epoch, and of the previous epoch."""
        return {
            "since_row": _states(self.since_row),
            "epoch": _states(self.epoch),
            "train": _states(self.stages.get("train", {})),
            "gradient": self.gradient,
            "row_step": self.row_step,
        }

    def resume_from(self, state: dict[str, Any]) -> None:
        """Continue with the statistics of a checkpoint."""
        self.since_row, self.epoch = _statistics(state["since_row"]), _statistics(state["epoch"])
        if state["train"]:
            self.stages["train"] = _statistics(state["train"])
        self.gradient, self.row_step = state["gradient"], state["row_step"]

    def observe(self, trainer: Trainer, outputs: Any) -> None:
        """Collect the reports of a training batch."""
        self._collect(self.since_row)
        gradient = self.active_gradient()
        if gradient != self.gradient:
            changed = self.gradient is not None
            self.gradient = gradient
            if changed:
                write_row(trainer)

    def row(self, trainer: Trainer) -> Row:
        """The columns of the batches since the last row."""
        if not self.since_row:
            return {}
        merged = _merge(self.since_row)
        for name, statistics in self.since_row.items():
            self.epoch.setdefault(name, LayerStatistics()).absorb(statistics)
        self.since_row = {}
        row = {**_solver_columns(merged.forward), **_backward_columns(merged.backward)}
        return {**row, "gradient": self.gradient or self.active_gradient()}

    def close_epoch(self) -> None:
        """Keep the statistics of the training epoch."""
        if self.epoch:
            self.stages["train"] = self.epoch
        self.epoch = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the statistics of a validation."""
        self._start_stage("val", pl_module)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Collect the reports of a validation batch."""
        if not trainer.sanity_checking:
            self._collect(self.stages["val"])

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the statistics of a test."""
        self._start_stage("test", pl_module)

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Collect the reports of a test batch."""
        self._collect(self.stages["test"])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn, once, if most outputs are not equilibria."""
        if self.warned or not trainer.is_global_zero:
            return
        for name, layer in self.layers.items():
            statistics = self.stages["test"].get(name)
            if statistics and (message := _unconverged(layer, statistics.forward)):
                self.warned = True
                warnings.warn(message, stacklevel=2)

    def summary(self) -> dict[str, Any]:
        """Forward and backward statistics for metrics.json.

        The forward ones are those of the test, else of the validation, else of the training.
        """
        if "test" in self.stages:
            solver = self.solver_stats("test")
        else:
            solver = self.solver_stats("val") or self.solver_stats("train")
        return {"solver_stats": solver, "gradient_stats": self.gradient_stats()}

    def solver_stats(self, stage: str) -> dict[str, Any] | None:
        """`solver_stats` of the latest epoch of a stage: "train", "val" or "test".

        The keys are nfe_mean, nfe_per_sample, nfe_spent_per_sample, residual_median, residual_p95
        and converged_fraction, merged over the layers; with several layers, `details` lists each.
        None if nothing was solved.
        """
        directions = {name: layer.forward for name, layer in self.stages.get(stage, {}).items()}
        return _summary(directions, SolveStatistics.forward_summary)

    def gradient_stats(self) -> dict[str, Any] | None:
        """nfe_mean, residual_median and fallback_fraction of the last training epoch.

        Merged and listed as in `solver_stats`; None if no backward pass has run.
        """
        directions = {name: layer.backward for name, layer in self.stages.get("train", {}).items()}
        return _summary(directions, SolveStatistics.backward_summary)

    def active_gradient(self) -> str:
        """The name of the estimator in force; several different ones are joined by "+"."""
        if len(self.layers) == 1:  # the usual case, and this runs at every step
            (layer,) = self.layers.values()
            return layer.gradient.name
        return "+".join(dict.fromkeys(layer.gradient.name for layer in self.layers.values()))

    def current(self) -> tuple[float | None, float, float | None] | None:
        """NFE per sample and per batch, and the median residual, of the latest batch.

        This costs one host-device synchronisation.
        """
        statistics = LayerStatistics()
        for report in self.seen.values():
            statistics.add(report)
        if not statistics.forward.solves:
            return None
        summary = statistics.forward.forward_summary()
        sample, residual = summary["nfe_per_sample"], summary["residual_median"]
        return sample, statistics.forward.nfe_mean(), residual

    def _start_stage(self, stage: str, module: LightningModule) -> None:
        self.layers = equilibrium_layers(module)
        self.stages[stage] = {}

    def _collect(self, statistics: Statistics) -> None:
        for name, layer in self.layers.items():
            report = layer.report
            # A layer that this batch did not use still holds its old report.
            if report is None or report is self.seen.get(name):
                continue
            self.seen[name] = report
            if name not in statistics:
                statistics[name] = LayerStatistics()
            statistics[name].add(report)


def _states(statistics: Statistics) -> dict[str, Any]:
    return {name: layer.state_dict() for name, layer in statistics.items()}


def _statistics(states: dict[str, Any]) -> Statistics:
    statistics = {name: LayerStatistics() for name in states}
    for name, layer in statistics.items():
        layer.load_state_dict(states[name])
    return statistics


def _merge(statistics: Statistics) -> LayerStatistics:
    if len(statistics) == 1:
        return next(iter(statistics.values()))
    merged = LayerStatistics()
    for layer in statistics.values():
        merged.absorb(layer)
    return merged


def _unconverged(layer: Equilibrium, forward: SolveStatistics) -> str | None:
    """The warning after a test in which less than half of the samples converged, else None."""
    solver, fraction = layer.active_solver, number(forward.converged.value())
    asked = solver.tol > 0 and not layer.gradient.own_iteration
    if not asked or fraction is None or fraction >= ENOUGH:
        return None
    return (
        f"{100 * (1 - fraction):.0f} % of the test samples did not reach the tolerance "
        f"{solver.tol:g} in {solver.max_steps} evaluations: train for longer, or raise "
        "solver.max_steps or solver.tol"
    )


def _solver_columns(forward: SolveStatistics) -> Row:
    median, p95 = forward.residuals.quantiles(0.5, 0.95) or (None, None)
    return _present(
        {
            "solver/nfe": forward.nfe_mean(),
            "solver/nfe_per_sample": forward.needed.value(),
            "solver/residual_median": median,
            "solver/residual_p95": p95,
            "solver/converged_fraction": forward.converged.value(),
        }
    )


def _backward_columns(backward: SolveStatistics) -> Row:
    if not backward.solves:
        return {}
    (median,) = backward.residuals.quantiles(0.5) or (None,)
    fallback = backward.fallback.value()
    return _present(
        {
            "backward/nfe": backward.nfe_mean(),
            "backward/residual_median": median,
            "backward/fallback_fraction": 0.0 if fallback is None else fallback,
        }
    )


def _present(columns: dict[str, Tensor | float | None]) -> Row:
    return {name: value for name, value in columns.items() if value is not None}


def _summary(
    directions: dict[str, SolveStatistics],
    summarise: Callable[[SolveStatistics], dict[str, float | None]],
) -> dict[str, Any] | None:
    used = {name: direction for name, direction in directions.items() if direction.solves}
    if not used:
        return None
    merged = SolveStatistics()
    for direction in used.values():
        merged.absorb(direction)
    details = {name: summarise(direction) for name, direction in used.items()}
    return {**summarise(merged), **({"details": details} if len(details) > 1 else {})}
