"""Bi-level optimisation: hyper-parameters learned by gradient descent on the held-out loss."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics import MeanMetric

from equipoise.equilibrium import LBFGS, Equilibrium, Exact, JacobianFree, Solver, Status
from equipoise.errors import UserError
from equipoise.report.hyperparameters import draw_hyperparameters, draw_outer_steps
from equipoise.report.page import Picture
from equipoise.tasks.objective import MakeOptimizer, Objective
from equipoise.tasks.schedules import Schedule

Decrease = Literal["exponential", "quadratic", "cubic", "constant"]
Batch = Mapping[str, Any]
PRECISIONS = ("32-true", "64-true")
MOST_LISTED = 1000
"""The most hyper-parameters whose values metrics.json lists; for more, it lists quantiles."""


class InnerProblem(Protocol):
    """The model: hyper-parameters, and coefficients that follow from them."""

    equilibrium: Equilibrium
    bounds: tuple[float, float]

    def __call__(self, table: Batch) -> Tensor:
        """Scores (N, outputs) with the present coefficients."""
        ...

    def solve(self, training: Batch, validation: Batch | None = None) -> Tensor:
        """The coefficients that minimise the inner objective, with a gradient."""
        ...

    def outer_loss(self, w: Tensor, validation: Batch) -> Tensor:
        """Mean loss of coefficients on samples."""
        ...

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample, (N,)."""
        ...

    def predicted(self, scores: Tensor) -> Tensor:
        """The predicted classes, (N,)."""
        ...

    def project(self) -> None:
        """Clip the hyper-parameters to their bounds."""
        ...

    def named_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The hyper-parameters by name."""
        ...


class TabularData(Protocol):
    """The data module."""

    def train_dataloader(self) -> Iterable[Batch]:
        """The one batch of an epoch, with the tables "training" and "validation"."""
        ...

    def transfer_batch_to_device(self, batch: Any, device: torch.device, index: int) -> Any:
        """The batch on the device."""
        ...


class Hyperparameter(Objective):
    """Minimises the loss on the validation table over the hyper-parameters lambda of a model.

    A training step is an outer step: the optimiser moves lambda along the last hyper-gradient
    (there is none in the first step), the model solves its inner problem, starting at the last
    solution, and the layer's estimator computes the hyper-gradient there. So after a step, and in a
    checkpoint, the solution is that of the present lambda. An epoch is one step.

    In outer step k, the inner and adjoint problems are solved to first_tolerance times
    decrease_factor^k ("exponential"), 1 / (k + 1)^2 ("quadratic"), 1 / (k + 1)^3 ("cubic") or 1
    ("constant"), but never below the `tol` of their own solver. Validation and test solve again to
    that `tol`, whatever the estimator, so that they judge lambda and not the budget; the next step
    still continues from its own solution. Columns: loss (outer), suboptimality (above the lowest so
    far), inner_iterations, linear_iterations, hypergradient (its norm), seconds (of all outer steps
    so far, without validation and files). Metrics: loss, accuracy. Source: Pedregosa 2016 (arXiv
    1602.02355), algorithm 1, for the tolerances.

    Raises UserError if lambda or its gradient is not finite, if the inner Hessian is singular or
    indefinite at the solution, and for a precision below that of the coefficients.
    """

    def __init__(
        self,
        model: nn.Module,
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        first_tolerance: float = 1e-3,
        decrease: Decrease = "exponential",
        decrease_factor: float = 0.9,
    ) -> None:
        super().__init__(model, make_optimizer, schedule)
        if decrease not in ("exponential", "quadratic", "cubic", "constant"):
            raise ValueError(
                f"decrease must be exponential, quadratic, cubic or constant, not {decrease!r}"
            )
        self.automatic_optimization = False
        self.first_tolerance = first_tolerance
        self.decrease, self.decrease_factor = decrease, decrease_factor
        self.problem = cast(InnerProblem, model)
        self.solver: Solver = self.problem.equilibrium.solver
        self.adjoint_solver: Solver | None = None  # as the last step set it
        self.adjoint_tolerance = 0.0  # as configured
        self.gradients: dict[str, Tensor] = {}  # for the next step; the trainer clears .grad
        self.history: dict[str, list[float]] = {}
        for stage in ("val", "test"):
            self.metrics[stage] = nn.ModuleDict({"loss": MeanMetric(), "accuracy": MeanMetric()})

    def configure_optimizers(self) -> Any:
        """The optimiser over lambda, and its schedule, which this class steps itself."""
        configured: Any = super().configure_optimizers()
        return {
            **configured,
            "lr_scheduler": {"scheduler": configured["lr_scheduler"]["scheduler"]},
        }

    def on_fit_start(self) -> None:
        """Raise UserError for a precision in which lambda cannot be computed."""
        precision = self.trainer.precision_plugin.precision
        if precision not in PRECISIONS:
            raise UserError(
                f"trainer.precision={precision} is too coarse for hyper-gradients: leave "
                "trainer.precision out"
            )

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """One outer step."""
        began = time.perf_counter()
        first = not self.gradients
        if not first:
            self._take_step(self.gradients, self.history["loss"][-1])
        tolerance = self.tolerance(len(self.history.get("loss", ())))
        self._set_tolerance(tolerance)
        w = self.problem.solve(batch["training"], batch["validation"])
        loss = self.problem.outer_loss(w, batch["validation"])
        self.zero_grad()
        self.manual_backward(loss)
        self.gradients = {
            n: p.grad for n, p in self.problem.named_parameters() if p.grad is not None
        }
        row = self._row(loss.detach(), time.perf_counter() - began)
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        if first:  # it counts as a step too, unless `_row` has refused it
            self._take_step({}, math.inf)
        return {"loss": loss.detach(), **{k: v for k, v in row.items() if k != "loss"}}

    def tolerance(self, step: int) -> float:
        """The tolerance of outer step `step`, counted from 0."""
        factors = {
            "exponential": self.decrease_factor**step,
            "quadratic": (step + 1.0) ** -2,
            "cubic": (step + 1.0) ** -3,
            "constant": 1.0,
        }
        return self.first_tolerance * factors[self.decrease]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Evaluate the present coefficients."""
        self._judge("val", batch)

    def on_validation_epoch_start(self) -> None:
        """Solve the inner problem to the end, so that validation, like the test, judges lambda.

        Otherwise best.ckpt would hold the lambda whose solution happened to stop at a lucky place.
        """
        with torch.inference_mode(False), torch.no_grad():  # the next step continues with these
            self.kept = copy.deepcopy((self.model.state_dict(), self.problem.equilibrium.report))
            self._solve_to_the_end(self._data())

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, and return to where the last outer step stopped."""
        super().on_validation_epoch_end()
        state, self.problem.equilibrium.report = self.kept
        with torch.inference_mode(False):
            self.model.load_state_dict(state)

    def on_test_epoch_start(self) -> None:
        """Solve the inner problem to the end for the present lambda."""
        self._solve_to_the_end(self._data())

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Evaluate the coefficients of the last solve."""
        self._judge("test", batch)

    def prepare_prediction(self, data: Any) -> None:
        """Solve the inner problem to the end, as before a test, on the training rows of `data`."""
        self._solve_to_the_end(data)

    def predict_step(self, batch: Batch, batch_index: int = 0) -> dict[str, Tensor]:
        """{"label": the class (N,)} of the rows of a table."""
        return {"label": self.problem.predicted(self.problem(batch))}

    def details(self) -> dict[str, Any]:
        """The hyper-parameters, how many lie at a bound, and what the outer steps have cost."""
        low, high = self.problem.bounds
        found = {name: p.detach().cpu() for name, p in self.problem.named_parameters()}
        at_bound = sum(int(((p <= low) | (p >= high)).sum()) for p in found.values())
        named = {_public(name): _listed(values) for name, values in found.items()}
        return {**named, "at_bound": at_bound, "outer": self._summary()}

    def epoch_notes(self) -> list[str]:
        """The iterations of the last outer step."""
        if not self.history:
            return []
        inner, linear = (self.history[f"{kind}_iterations"][-1] for kind in ("inner", "linear"))
        return [f"inner {inner:.0f}", f"linear {linear:.0f}"]

    def pictures(self, folder: Path) -> list[Picture]:
        """Suboptimality against time, and the hyper-parameters; a csv file with all of them."""
        if not self.history:
            return []
        named = {_public(n): p.detach().cpu().numpy() for n, p in self.problem.named_parameters()}
        return [
            *draw_outer_steps(self.history, folder),
            *draw_hyperparameters(named, folder),
        ]

    def get_extra_state(self) -> dict[str, Any]:
        """The pending hyper-gradient and the outer steps so far."""
        return {"gradients": self.gradients, "history": self.history}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue after these steps; testing an earlier checkpoint keeps the later history."""
        self.gradients = dict(state["gradients"])
        trainer = self._trainer
        if self.history and trainer is not None and trainer.state.fn == TrainerFn.TESTING:
            return
        self.history = {name: list(values) for name, values in state["history"].items()}

    def _data(self) -> TabularData:
        return cast(TabularData, self.trainer.datamodule)  # type: ignore[attr-defined]

    def _solve_to_the_end(self, data: TabularData) -> None:
        layer = self.problem.equilibrium
        estimator, current, solver = layer.gradient, layer.solver, self.solver
        if isinstance(solver, LBFGS):
            solver = replace(solver, opa_every=None)
        layer.gradient, layer.solver = JacobianFree(), solver
        (batch,) = data.train_dataloader()
        batch = data.transfer_batch_to_device(batch, self.device, 0)
        try:
            self.problem.solve(batch["training"])
        finally:
            layer.gradient, layer.solver = estimator, current

    def _take_step(self, gradients: Mapping[str, Tensor], loss: float) -> None:
        """Take the optimiser's step if there is a gradient; the trainer counts it in any case."""
        optimizer: Any = self.optimizers()
        for name, parameter in self.problem.named_parameters():
            gradient = gradients.get(name)
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        optimizer.step(closure=lambda: loss)
        if gradients:
            self.problem.project()
            cast(Any, self.lr_schedulers()).step()

    def _set_tolerance(self, tolerance: float) -> None:
        """Give the present solvers, which a gradient schedule may have changed, this tolerance."""
        layer = self.problem.equilibrium
        layer.solver = replace(layer.solver, tol=max(tolerance, self.solver.tol))
        estimator = layer.gradient
        if not isinstance(estimator, Exact):
            return
        if estimator.solver is not self.adjoint_solver:
            self.adjoint_tolerance = estimator.solver.tol
        tolerance = max(tolerance, self.adjoint_tolerance)
        self.adjoint_solver = replace(estimator.solver, tol=tolerance)
        layer.gradient = replace(estimator, solver=self.adjoint_solver)

    def _row(self, loss: Tensor, seconds: float) -> dict[str, float]:
        """A step's entry in the curve and the history. Raises UserError as the class describes."""
        size = float(torch.stack([gradient.norm() for gradient in self.gradients.values()]).norm())
        report = self.problem.equilibrium.report
        assert report is not None
        assert report.backward is not None
        status = report.backward.status
        if status is not None and bool((status == Status.NON_FINITE).any()):
            raise UserError(
                "the Hessian of the inner problem is singular or indefinite at its solution, so "
                "there is no exact hyper-gradient: raise the lower end of model.bounds, or choose "
                "gradient=shine"
            )
        value = float(loss)
        if not math.isfinite(value + size):
            raise UserError(
                "the outer loss or its gradient is not finite: start nearer to 0 "
                "(model.log_strength), or narrow model.bounds"
            )
        past = self.history.get("loss", [])
        return {
            "loss": value,
            "suboptimality": value - min([value, *past]),
            "inner_iterations": float(report.nfe),
            "linear_iterations": float(report.backward.nfe),
            "hypergradient": size,
            "seconds": seconds + (self.history["seconds"][-1] if past else 0.0),
        }

    def _judge(self, stage: str, batch: Batch) -> None:
        scores = self.problem(batch)
        metrics = self.stage_metrics(stage)
        metrics["loss"].update(self.problem.loss(scores, batch["target"]))
        metrics["accuracy"].update((self.problem.predicted(scores) == batch["target"]).double())

    def _summary(self) -> dict[str, float]:
        if not self.history:
            return {}
        losses, seconds = self.history["loss"], self.history["seconds"]
        return {
            "steps": len(losses),
            "lowest_loss": min(losses),
            "inner_iterations": sum(self.history["inner_iterations"]),
            "linear_iterations": sum(self.history["linear_iterations"]),
            "seconds": seconds[-1],
        }


def _public(name: str) -> str:
    """`log_strength` is the lambda of the papers."""
    return "lambda" if name == "log_strength" else name


def _listed(values: Tensor) -> Any:
    """A single number, a list of all values, or quantiles if there are very many."""
    if values.numel() == 1:
        return float(values)
    if values.numel() <= MOST_LISTED:
        return [round(float(value), 6) for value in values]
    parts = (0.0, 0.25, 0.5, 0.75, 1.0)
    return {f"{part:.0%}": float(values.double().quantile(part)) for part in parts}
