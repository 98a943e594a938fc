"""Limited-memory BFGS, which minimises instead of only looking for a fixed point."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from equipoise.equilibrium.curvature_pairs import CurvaturePairs, product, renewed
from equipoise.equilibrium.descent import Descent
from equipoise.equilibrium.flat_function import FlatFunction
from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.low_rank import LowRankInverse, reciprocal
from equipoise.equilibrium.solution import Stop
from equipoise.equilibrium.solvers.solver import Solver

DECREASE = 1e-4
ROUNDING = 1e-10
"""Part of the objective's size below which a difference of two values tells nothing."""
SHORTEST, LONGEST = 0.1, 0.5
"""A step that was too long is shortened to a part of it between these."""
FRESH_EVERY = 10
"""Pairs between two computations of the products with g, which follow by a recurrence otherwise."""
PER_SAMPLE = ("steps", "ended", "origin", "value", "g", "along", "direction", "slope", "length")
"""What an iteration remembers with a row per sample, beside the pairs."""


class LBFGSIteration(Iteration):
    """Steps along -H grad h, each shortened until h decreases enough; one trial per evaluation.

    origin, value, g = -grad h: of the latest point that was accepted, per sample; along: the inner
    products of the pairs' rows with g; direction and slope = -g^T direction belong to the step from
    there, and length is the part of it on trial. spare: memory for the next g.
    steps (B,): points accepted. ended (B,) bool: samples that have taken in the evaluation at which
    they ended, and stay as they are.
    """

    def __init__(self, function: FlatFunction, pairs: CurvaturePairs, solver: LBFGS) -> None:
        assert isinstance(function.f, Descent)
        self.function = function
        self.descent = function.f
        self.pairs = pairs
        self.solver = solver
        self.begun = False
        self.recurrences = 0
        self.steps: Tensor
        self.ended: Tensor
        self.origin: Tensor
        self.value: Tensor
        self.g: Tensor
        self.along: Tensor
        self.direction: Tensor
        self.slope: Tensor
        self.length: Tensor
        self.spare: Tensor | None = None

    def residual_buffer(self, default: Tensor) -> Tensor:
        """A different buffer from that of g, which is kept."""
        return default if self.spare is None else self.spare

    def advance(self, z: Tensor, fz: Tensor, g: Tensor, frozen: Tensor | None) -> Tensor:
        """The next trial: a new step where z is accepted, a shorter one elsewhere."""
        accepted = self._take(z, g)
        ending = torch.zeros_like(accepted) if frozen is None else frozen & ~self.ended
        self.ended = self.ended | ending
        if self.solver.opa_every:
            due = accepted & (self.steps % self.solver.opa_every == 0) & ~self.ended
            self._aim(due, 1, spared=1)
            self._aim(ending, self.solver.opa_steps, spared=1, at_end=True)
        if bool(accepted.any()):
            self._turn(accepted)
        return torch.addcmul(self.origin, self.length, self.direction)

    def conclude(self, z: Tensor, g: Tensor) -> None:
        """Take in the last pair, and refine H once more for the loss."""
        self._take(z, g)
        if self.solver.opa_every:
            self._aim(~self.ended, self.solver.opa_steps, spared=0, at_end=True)

    def inverse(self) -> LowRankInverse:
        """-H with the pairs that are in memory."""
        return self.pairs.inverse()

    def keep_rows(self, rows: Tensor) -> None:
        """Those of all that is remembered per sample; the descent keeps the pairs of all so far."""
        self.pairs = copy(self.pairs)
        self.pairs.keep_rows(rows)
        for name in PER_SAMPLE:
            setattr(self, name, getattr(self, name)[rows])
        self.spare = torch.empty_like(self.g)

    def _take(self, z: Tensor, g: Tensor) -> Tensor:
        """(B,) bool: where the trial z becomes the origin; the others get a shorter length."""
        value = self.descent.values.to(z.dtype).unsqueeze(1)
        if not self.begun:
            return self._begin(z, value, g)
        accepted = self._decreases(value, g) & ~self.ended.unsqueeze(1)
        self.steps = self.steps + accepted.squeeze(1)
        if bool(accepted.all()):  # the usual case, in the memory that is at hand
            s, y = torch.sub(z, self.origin, out=self.origin), self.g.sub_(g)
            self.origin, self.value, self.g, self.spare = z, value, g, y
        else:
            s, y = z - self.origin, self.g - g
            self.length = torch.where(accepted, self.length, self._shortened(value))
            self.origin = torch.where(accepted, z, self.origin)
            self.value = torch.where(accepted, value, self.value)
            self.g = torch.where(accepted, g, self.g)
            y = torch.where(accepted, y, 0.0)
        along_y = self.pairs.along(y)
        self.along = self.along - along_y
        self._store(s, y, accepted.squeeze(1), along_y)
        return accepted.squeeze(1)

    def _begin(self, z: Tensor, value: Tensor, g: Tensor) -> Tensor:
        self.begun = True
        accepted = torch.ones(len(z), dtype=torch.bool, device=z.device)
        self.ended, self.steps = ~accepted, accepted.long()
        self.origin, self.value, self.g, self.along = z.clone(), value, g, self.pairs.along(g)
        self.direction, self.length = torch.zeros_like(z), torch.ones_like(value)
        self.slope = torch.zeros_like(value)
        self.spare = torch.empty_like(g)
        return accepted

    def _store(self, s: Tensor, y: Tensor, where: Tensor, along_y: Tensor) -> Tensor:
        """Take in a pair, with `along` of g brought up to it; returns the pair's columns."""
        columns = self.pairs.store(s, y, where, along_y)
        self.recurrences += 1
        if self.recurrences % FRESH_EVERY:
            self.along = renewed(self.along, columns, product(s, self.g), product(y, self.g))
        else:
            self.along = self.pairs.along(self.g)
        return columns

    def _decreases(self, value: Tensor, g: Tensor) -> Tensor:
        """(B, 1) bool: Armijo's condition, or, where values differ by rounding, that of slopes.

        Source: Hager and Zhang 2005, eq. 4.1 (the approximate Wolfe conditions).
        """
        enough = value <= self.value + DECREASE * self.length * self.slope
        rounding = max(ROUNDING, 8 * torch.finfo(value.dtype).eps)
        as_small = value <= self.value + rounding * self.value.abs()
        flat = product(g, self.direction) >= (1 - 2 * DECREASE) * self.slope
        return enough | (as_small & flat)

    def _shortened(self, value: Tensor) -> Tensor:
        """(B, 1) the minimum of the parabola through what is known, within limits."""
        rise = value - self.value - self.length * self.slope
        part = torch.where(rise > 0, -0.5 * self.length * self.slope / rise, SHORTEST)
        return self.length * part.clamp(SHORTEST, LONGEST)

    def _turn(self, accepted: Tensor) -> None:
        """A new direction and the full length of it; steepest descent where H leads nowhere."""
        where = accepted.unsqueeze(1)
        direction = self.pairs.apply(self.g, self.along)
        slope = -product(self.g, direction)
        downhill = slope < 0
        if bool((downhill & where).all()):
            self.direction, self.slope, self.length = direction, slope, torch.ones_like(slope)
            return
        direction = torch.where(downhill, direction, self.g)
        slope = torch.where(downhill, slope, -product(self.g, self.g))
        self.direction = torch.where(where, direction, self.direction)
        self.slope = torch.where(where, slope, self.slope)
        self.length = torch.where(where, 1.0, self.length)

    def _aim(self, where: Tensor, updates: int, spared: int, at_end: bool = False) -> None:
        """Pairs (e, A e), A the Hessian at the origin, so that H grad L comes near to A^-1 grad L.

        e = H r, where r is what the pairs so far leave of grad L: conjugate gradients,
        preconditioned by H. At the end of a solve the first e is the adjoint that is known, mostly
        that of an earlier solve nearby. Each takes one evaluation, at a small step along e.
        spared: evaluations of the budget that are left for the solve.
        """
        updates = min(updates, self.solver.max_steps - spared - self.function.evaluations)
        if updates < 1 or not bool(where.any()):
            return
        assert self.descent.outer_gradient is not None
        r = self.descent.outer_gradient(self.origin)
        size = torch.linalg.vector_norm(self.origin, dim=1, keepdim=True)
        increment = self.function.resolution**0.5 * (1.0 + size)
        least = self.solver.tol * torch.linalg.vector_norm(r, dim=1)
        tiny = torch.finfo(r.dtype).tiny
        along_r = self.pairs.along(r)
        samples, known = where.unsqueeze(1), self.descent.adjoint if at_end else None
        adjoint = torch.zeros_like(r)
        for _ in range(updates):
            e = self.pairs.apply(r, along_r)
            if known is not None:
                e, known = torch.where(known.any(dim=1, keepdim=True), known, e), None
            e.mul_(increment / torch.linalg.vector_norm(e, dim=1, keepdim=True).clamp(min=tiny))
            point = self.origin + e
            a_e = point.sub_(self.function(point)).add_(self.g)
            along_a_e = self.pairs.along(a_e)
            columns = self._store(e, a_e, where, along_a_e)
            part = product(e, r) * reciprocal(product(e, a_e))
            adjoint = torch.addcmul(adjoint, part, e)
            r = torch.addcmul(r, part, a_e, value=-1.0)
            along_r = torch.addcmul(along_r, part, along_a_e, value=-1.0)
            along_r = renewed(along_r, columns, product(e, r), product(a_e, r))
            where = where & (torch.linalg.vector_norm(r, dim=1) > least)
            if not bool(where.any()):
                break
        if at_end:
            earlier = self.descent.adjoint
            earlier = torch.zeros_like(r) if earlier is None else earlier
            self.descent.adjoint = torch.where(samples, adjoint, earlier)


@dataclass(frozen=True, kw_only=True)
class LBFGS(Solver):
    """z <- z - length H grad h(z), H the BFGS estimate of the inverse Hessian; f is a `Descent`.

    memory: secant pairs kept (two states each); those of `Descent.pairs` come first, so a solve
    near an earlier one starts with its H. opa_every: accepted steps between updates along H grad L,
    L the outer loss (outer-problem awareness, for `Shine`), which need `Descent.outer_gradient`;
    None: no such updates. opa_steps: at most this many more at the end of a solve, until H grad L
    equals A^-1 grad L to `tol`, A the Hessian. Each of these costs an evaluation; all other
    evaluations are trials of steps. stop: the absolute size of the gradient shows how far the
    minimum is; relative to z it does not. patience is longer than elsewhere, because gradients may
    grow while the objective falls. Source: Liu and Nocedal 1989; Ramzi et al. 2022 (arXiv
    2106.00553), algorithm LBFGS with OPA.
    """

    name: ClassVar[str] = "lbfgs"

    max_steps: int = 1000
    tol: float = 1e-6
    stop: Stop = "absolute"
    patience: int = 100
    memory: int = 30
    opa_every: int | None = None
    opa_steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1:
            raise ValueError(f"memory must be at least 1, got {self.memory}")
        if self.opa_every is not None and self.opa_every < 1:
            raise ValueError(f"opa_every must be at least 1, or None, got {self.opa_every}")
        if self.opa_steps < 1:
            raise ValueError(f"opa_steps must be at least 1, got {self.opa_steps}")
        if self.opa_every is not None and self.compact_at is not None:
            raise ValueError("compact_at needs opa_every=None: an outer gradient is of all rows")

    def start(self, z0: Tensor, function: FlatFunction) -> LBFGSIteration:
        """The known pairs, or empty buffers.

        Raises TypeError if f is not a descent map, and ValueError if `opa_every` is set but the
        descent has no outer gradient, or if its pairs have another shape.
        """
        descent = function.f
        if not isinstance(descent, Descent):
            raise TypeError(
                "lbfgs minimises, so it needs a Descent, which tells the values of the objective; "
                "for other maps use anderson or broyden"
            )
        if self.opa_every and descent.outer_gradient is None:
            raise ValueError(
                "opa_every needs the outer_gradient of the Descent; set it, or leave opa_every out"
            )
        known = descent.pairs
        if known is not None and known.s[:, 0].shape != z0.shape:
            raise ValueError(
                f"the pairs of the Descent are for states {tuple(known.s[:, 0].shape)}, this one "
                f"is {tuple(z0.shape)}"
            )
        if known is None or known.size != self.memory:
            descent.pairs = (
                known.with_room(self.memory) if known else CurvaturePairs(z0, self.memory)
            )
        assert descent.pairs is not None
        return LBFGSIteration(function, descent.pairs, self)
