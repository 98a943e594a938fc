"""Models whose coefficients minimise a regularised loss, as a function of hyper-parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from equipoise.equilibrium import AdjointMemory, CurvaturePairs, Descent, Equilibrium, Exact
from equipoise.models.regularized.table import Table

Strengths = Literal["one", "feature", "coefficient"]


def check_choice(name: str, choice: str, choices: Iterable[str]) -> None:
    """Raise ValueError for an unknown choice."""
    if choice not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {choice!r}")


@dataclass(frozen=True)
class Units:
    """scaling (D,) of the coordinates and strength (D,) of the penalty at the latest solve."""

    scaling: Tensor
    strength: Tensor


class RegularizedModel(nn.Module, ABC):
    """w*(lambda) = argmin h(w, lambda), h = mean training loss + 1/2 sum_j exp(lambda_j) w_j^2.

    log_strength: lambda (P,), the parameter that the outer problem trains, within `bounds`.
    coefficients: (1, D), the latest w*, from which the next solve starts, together with its
    curvature pairs and the adjoint solution of the latest exact gradient.

    The equilibrium layer sees h in the coordinates z = w / scaling, scaling_j = (curvature + exp
    lambda_j)^-1/2, where `curvature` bounds the Hessian of the training loss: in these the Hessian
    lies between 0 and I for any strengths, so plain descent contracts.
    """

    dense_only = False
    head_parts: tuple[str, ...] = ("coefficients",)

    def __init__(
        self,
        equilibrium: Equilibrium,
        groups: Tensor,
        log_strength: float,
        bounds: Sequence[float],
        drawn_by: int | None,
    ) -> None:
        """groups: (D,), which entry of lambda applies to each coefficient, -1 for none (an
        intercept).

        Raises ValueError if the bounds are not an interval, or if a start lies outside it.
        """
        super().__init__()
        low, high = bounds
        if not low < high:
            raise ValueError(f"bounds must be a lower and a higher number, got {list(bounds)}")
        self.equilibrium = equilibrium
        self.bounds = (float(low), float(high))
        if drawn_by is None:
            self.check_start("log_strength", log_strength)
        count = int(groups.max()) + 1
        start = torch.full((count,), float(log_strength), dtype=torch.float64)
        if drawn_by is not None:
            generator = torch.Generator().manual_seed(drawn_by)
            start = low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)
        self.log_strength = nn.Parameter(start)
        self.groups: Tensor
        self.register_buffer("groups", groups, persistent=False)
        self.coefficients: Tensor
        self.register_buffer("coefficients", torch.zeros(1, len(groups), dtype=torch.float64))
        self.pairs: CurvaturePairs | None = None
        self.adjoint = AdjointMemory()
        self.units: Units | None = None
        self._curvature: float | None = None

    def check_start(self, name: str, value: float) -> None:
        """Raise ValueError for a hyper-parameter that starts outside of the bounds."""
        low, high = self.bounds
        if not low <= value <= high:
            raise ValueError(f"{name}={value:g} lies outside of bounds={[low, high]}")

    def prepare(self, training: Table) -> None:
        """Compute what all evaluations of a solve share; by default nothing."""
        return

    @abstractmethod
    def curvature(self, training: Table) -> float:
        """An upper bound of the eigenvalues of the training loss's Hessian."""

    @abstractmethod
    def objective(self, w: Tensor, training: Table) -> tuple[Tensor, Tensor]:
        """Mean training loss (1,) and its gradient (1, D) at w (1, D), without a graph."""

    @abstractmethod
    def gradient(self, w: Tensor, training: Table) -> Tensor:
        """The same gradient, by operations that can be differentiated."""

    @abstractmethod
    def scores(self, table: Table, w: Tensor) -> Tensor:
        """(N, outputs) for the samples of a table and w (1, D)."""

    @abstractmethod
    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """(N,) the loss of each sample."""

    @abstractmethod
    def predicted(self, scores: Tensor) -> Tensor:
        """(N,) the class of each sample."""

    def forward(self, table: Table) -> Tensor:
        """Scores (N, outputs) with the present coefficients."""
        return self.scores(table, self.coefficients)

    def strengths(self) -> Tensor:
        """exp(lambda) of each coefficient (D,), 0 for an intercept."""
        padded = torch.cat([self.log_strength.exp(), self.log_strength.new_zeros(1)])
        return padded[self.groups]

    @torch.no_grad()
    def project(self) -> None:
        """Put the hyper-parameters back into their bounds."""
        for parameter in self.parameters():
            parameter.clamp_(*self.bounds)

    def solve(self, training: Table, validation: Table | None = None) -> Tensor:
        """w*(lambda) (1, D), differentiable in lambda; keeps everything for the next solve.

        validation: the data of the outer loss; a solver may target its gradient.
        """
        self.prepare(training)
        self._follow()
        strength = self.strengths()
        constant = strength.detach()
        if self._curvature is None:
            self._curvature = self.curvature(training)
        scaling = torch.rsqrt(self._curvature + constant)

        def objective(z: Tensor) -> tuple[Tensor, Tensor]:
            w = scaling * z
            value, gradient = self.objective(w, training)
            penalized = constant * w
            penalty = 0.5 * torch.mm(penalized, w.T).squeeze(1)
            return value + penalty, (gradient + penalized).mul_(scaling)

        def gradient(z: Tensor) -> Tensor:
            w = scaling * z
            return scaling * (self.gradient(w, training) + strength * w)

        def outer_gradient(z: Tensor) -> Tensor:
            assert validation is not None
            with torch.enable_grad():
                w = (scaling * z).requires_grad_()
                (derivative,) = torch.autograd.grad(self.outer_loss(w, validation), w)
            return scaling * derivative

        descent = Descent(
            gradient,
            objective,
            None if validation is None else outer_gradient,
        )
        self._move_to(Units(scaling, constant))
        descent.pairs, descent.adjoint = self.pairs, self.adjoint.latest
        z = self.equilibrium(descent, self.coefficients / scaling)
        self.pairs, self.adjoint.latest = descent.pairs, descent.adjoint
        w: Tensor = scaling * z
        self.coefficients = w.detach()
        return w

    def outer_loss(self, w: Tensor, validation: Table) -> Tensor:
        """The mean loss of w (1, D) on the validation samples, a scalar."""
        return self.loss(self.scores(validation, w), validation["target"]).mean()

    def get_extra_state(self) -> dict[str, Any]:
        """What the next solve starts from, besides the coefficients."""
        if self.units is None:
            return {}
        pairs = {} if self.pairs is None else self.pairs.state()
        units = {"scaling": self.units.scaling, "strength": self.units.strength}
        return {"pairs": pairs, "adjoint": self.adjoint.latest, **units}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue from that state; from an empty one, as if nothing had been solved."""
        if not state:
            self.units, self.pairs, self.adjoint.latest = None, None, None
            return
        device = self.coefficients.device
        self.units = Units(state["scaling"].to(device), state["strength"].to(device))
        self.adjoint.latest = None if state["adjoint"] is None else state["adjoint"].to(device)
        self.pairs = CurvaturePairs.of(state["pairs"], device) if state["pairs"] else None

    def _follow(self) -> None:
        """Move what is known of the last problem to the module's device."""
        if self.units is not None and self.units.scaling.device != self.coefficients.device:
            self.set_extra_state(self.get_extra_state())

    def _move_to(self, units: Units) -> None:
        """Convert what is known of the last problem to the coordinates and strengths of this one.

        A pair's change of gradient is that of the training loss plus strength times s, so it is
        exact for other strengths too.
        """
        before, self.units = self.units, units
        gradient = self.equilibrium.gradient
        if isinstance(gradient, Exact) and gradient.adjoint is not self.adjoint:
            self.equilibrium.gradient = replace(gradient, adjoint=self.adjoint)
        if before is None:
            return
        ratio = before.scaling / units.scaling
        if self.adjoint.latest is not None:
            self.adjoint.latest = self.adjoint.latest * ratio
        if self.pairs is not None:
            stiffening = units.scaling**2 * (units.strength - before.strength)
            self.pairs = self.pairs.moved(ratio, stiffening)
