"""What every gradient estimator offers, and what the explicit ones share."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from equipoise.equilibrium.solution import Solution, SolveReport
from equipoise.equilibrium.state import Function, State, parts


class GradientEstimator(Protocol):
    """Gives a solution, found without a graph, a gradient towards f's parameters and the inputs.

    own_iteration: the estimator starts at z0 and brings its own iteration, in evaluation too; the
    layer then runs no solver and passes `Solution.unsolved(z0)`.
    """

    own_iteration: ClassVar[bool]

    @property
    def name(self) -> str:
        """The word by which configurations and logs call the estimator."""
        ...

    def attach(self, f: Function, solution: Solution, z0: State, *inputs: Tensor) -> State:
        """A state with the values of `solution.z`, up to the steps that the estimator takes itself.

        Where gradients are disabled it is `solution.z`. Once a backward pass has reached the state,
        `solution.report.backward` tells what it cost.
        """
        ...


def constant(state: State) -> State:
    """The same values, cut from any graph."""
    if isinstance(state, Tensor):
        return state.detach()
    return tuple(part.detach() for part in state)


def report_products(state: State, report: SolveReport, products: int) -> None:
    """Note, when the backward pass arrives at `state`, that it will take so many products with J^T.

    For estimators whose backward is an explicit graph: they solve nothing, so there is no residual.
    """
    first = parts(state)[0]
    if not first.requires_grad:
        return

    def note(_: Tensor) -> None:
        report.backward = SolveReport(nfe=products)

    first.register_hook(note)


def finite_or_kept(state: State, kept: State) -> State:
    """`state`, with the values of `kept` in the samples of which something is not finite.

    A sum tells it, which is not finite wherever one of its terms is not; the device is not read.
    """
    sums = [_row_sums(part.detach()) for part in parts(state)]
    finite = torch.isfinite(sum(sums[1:], sums[0]))
    chosen = tuple(
        torch.where(finite.view(-1, *(1 for _ in a.shape[1:])), a, b.detach().to(a.dtype))
        for a, b in zip(parts(state), parts(kept), strict=True)
    )
    return chosen[0] if isinstance(state, Tensor) else chosen


def _row_sums(part: Tensor) -> Tensor:
    rows = part.reshape(part.shape[0], part.shape[1:].numel())
    return rows.sum(dim=1, dtype=torch.promote_types(part.dtype, torch.float32))


def damped(z: State, fz: State, damping: float) -> State:
    """(1 - damping) z + damping f(z), part by part."""
    if damping == 1.0:
        return fz
    pairs = zip(parts(z), parts(fz), strict=True)
    mixed = tuple(torch.lerp(a, b.to(a.dtype), damping) for a, b in pairs)
    return mixed if isinstance(z, tuple) else mixed[0]
