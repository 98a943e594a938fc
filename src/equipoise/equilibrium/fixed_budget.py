"""Networks whose solves take a fixed number of evaluations, so that a tracer can follow them.

With tol = 0 no step of a solve depends on the values that it meets, and the loop of `Solver.solve`
unrolls into one graph of tensor operations.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from equipoise.equilibrium.gradients import with_budget
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.small_systems import eliminated
from equipoise.equilibrium.solvers import AdjointBroyden, Solver

TRACEABLE = ("anderson", "broyden", "fixed_point", "newton_krylov")
"""The solvers of which a graph can be made; adjoint_broyden is one with the updates of broyden."""

Network = TypeVar("Network", bound=nn.Module)


def with_fixed_budget(network: Network, steps: int | None = None) -> Network:
    """A copy for evaluation whose equilibrium layers spend the same evaluations on every sample.

    steps: evaluations of a solve; None: each layer's maximum. The arithmetic is that of the layers:
    the result is the iterate of lowest residual, but no residual ends a solve. An estimator's own
    iteration takes as many steps as fit into these evaluations. Call the copy with gradients
    disabled; otherwise an estimator adds steps of its own. Raises ValueError if steps is below 1.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"a solve needs at least one evaluation, got steps={steps}")
    fixed = copy.deepcopy(network).eval().requires_grad_(False)
    for layer in equilibrium_layers(fixed).values():
        layer.solver = fixed_solver(layer.active_solver, steps)
        layer.eval_solver = None
        if steps is not None:
            layer.gradient = with_budget(layer.gradient, steps)
    return fixed


def fixed_solver(solver: Solver, steps: int | None = None) -> Solver:
    """The solver with a budget that it spends on all samples, keeping no trace and no states.

    Products with the transposed Jacobian cannot be traced, so adjoint Broyden does what it does
    where autograd is off for good: it updates as `Broyden`.
    """
    if isinstance(solver, AdjointBroyden):
        solver = replace(solver.as_broyden(), initial_inverse=None)
    budget = solver.max_steps if steps is None else steps
    return replace(solver, max_steps=budget, tol=0.0, compact_at=None, trace=False, keep_states=())


class Eliminating(TorchFunctionMode):
    """Within it, `torch.linalg.solve_ex` solves by `eliminated`, for runtimes without a solver."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace that one function; everything else passes."""
        if func is not torch.linalg.solve_ex:
            return func(*args, **(kwargs or {}))
        matrix, right = args
        return eliminated(matrix, right), torch.zeros_like(right[:, 0], dtype=torch.int32)
