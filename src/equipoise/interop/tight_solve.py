"""The fixed point to round-off, for comparisons with recorded values."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from equipoise.equilibrium import Broyden, FixedPoint, Solution
from equipoise.equilibrium.state import Function

RESOLVED = 50
"""The solve ends at so many times the round-off of the dtype, relative to the state."""


def tight_solve(f: Function, z0: Tensor, *inputs: Tensor) -> Tensor:
    """Return z = f(z, *inputs): by plain iteration, and what that leaves by Broyden's method.

    Plain iteration comes first: the recorded points were found so, and f may have others.
    Samples that neither solves to round-off are counted in a warning.
    """
    tolerance = RESOLVED * torch.finfo(z0.dtype).eps
    plain = FixedPoint(max_steps=1500, tol=tolerance, patience=100).solve(f, z0, *inputs)
    if bool(plain.converged.all()):
        return _state(plain)
    rest = Broyden(max_steps=300, tol=tolerance, memory=100, patience=300).solve(f, z0, *inputs)
    failed = int((~(plain.converged | rest.converged)).sum())
    if failed:
        warnings.warn(f"{failed} of {len(z0)} samples did not reach {tolerance:.0e}", stacklevel=3)
    chosen = plain.converged | (plain.residual < rest.residual)
    return torch.where(chosen.view(-1, 1, 1), _state(plain), _state(rest))


def _state(solution: Solution) -> Tensor:
    assert isinstance(solution.z, Tensor)
    return solution.z
