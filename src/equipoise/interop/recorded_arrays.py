"""Converting recorded arrays to and from a model, and the fixed points to compare them with."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from functools import reduce
from typing import Any, TypeVar

import torch
from numpy import ndarray
from torch import Tensor, nn

from equipoise.equilibrium import Broyden, FixedPoint, Solution
from equipoise.equilibrium.state import Function, State
from equipoise.interop.published_configuration import DoesNotFit

Network = TypeVar("Network", bound=nn.Module)
RESOLVED = 50
"""A tight solve ends at this many times the round-off of the dtype, relative to the state."""


def as_tensors(arrays: Mapping[str, Any], network: nn.Module) -> dict[str, Tensor]:
    """Every array as a tensor on the network's device, numbers in the widest of their dtypes.

    Integers become int64; text is left out.
    """
    device = next(network.parameters(), torch.empty(0)).device  # a loss has none
    usable = {name: array for name, array in arrays.items() if _kind(array) not in "USO"}
    tensors = {name: torch.as_tensor(array).to(device) for name, array in usable.items()}
    dtype = widest(tensors)
    return {n: t.to(dtype if t.is_floating_point() else torch.int64) for n, t in tensors.items()}


def widest(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The widest floating dtype; float64 if no array is floating."""
    floating = [tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()]
    return reduce(torch.promote_types, floating) if floating else torch.float64


def evaluation_copy(model: Network, dtype: torch.dtype) -> Network:
    """A copy in evaluation mode, without the equilibrium layer.

    The layer's report may refer to a graph, which cannot be copied.
    """
    layer = getattr(model, "equilibrium", None)
    memo: dict[int, Any] = {} if layer is None else {id(layer): nn.Identity()}
    return copy.deepcopy(model, memo).to(dtype).eval()


def as_arrays(outputs: Mapping[str, Tensor]) -> dict[str, ndarray]:
    """Tensors as numpy arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in outputs.items()}


def required(inputs: Mapping[str, Tensor], name: str, what: str) -> Tensor:
    """The array `name`. Raises DoesNotFit, saying `what` it is, where it is missing."""
    if name not in inputs:
        raise DoesNotFit(f"the arrays need '{name}', {what}")
    return inputs[name]


def repeated(f: Function, z0: Tensor, inputs: tuple[Tensor, ...], times: int) -> Tensor:
    """f applied `times` times from z0, as in the published warm-up."""
    z: State = z0
    for _ in range(times):
        z = f(z, *inputs)
    assert isinstance(z, Tensor)
    return z


def _kind(array: Any) -> str:
    return str(getattr(getattr(array, "dtype", None), "kind", "f"))


def tight_solve(f: Function, z0: Tensor, *inputs: Tensor) -> Tensor:
    """The solution of z = f(z, *inputs), by plain iteration, then by Broyden's method if needed.

    Plain iteration comes first: it gave the recorded points, and f may have others. Samples that
    neither solves to round-off are counted in a warning.
    """
    tolerance = RESOLVED * torch.finfo(z0.dtype).eps
    plain = FixedPoint(max_steps=1500, tol=tolerance, patience=100).solve(f, z0, *inputs)
    if bool(plain.converged.all()):
        return _state(plain)
    rest = Broyden(max_steps=300, tol=tolerance, memory=100, patience=300).solve(f, z0, *inputs)
    failed = int((~(plain.converged | rest.converged)).sum())
    if failed:
        warnings.warn(f"{failed} of {len(z0)} samples did not reach {tolerance:.0e}", stacklevel=3)
    by_plain = plain.converged | (plain.residual < rest.residual)
    return torch.where(by_plain.view(-1, 1, 1), _state(plain), _state(rest))


def _state(solution: Solution) -> Tensor:
    assert isinstance(solution.z, Tensor)
    return solution.z
