"""Recorded arrays in and out of a model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import reduce
from typing import Any, TypeVar

import torch
from numpy import ndarray
from torch import Tensor, nn

from equipoise.equilibrium.state import Function, State
from equipoise.interop.errors import DoesNotFit

Network = TypeVar("Network", bound=nn.Module)


def as_tensors(arrays: Mapping[str, Any], network: nn.Module) -> dict[str, Tensor]:
    """Every array as a tensor on the network's device: numbers in the widest of their dtypes.

    Whole numbers become int64; text is left out.
    """
    device = next(network.parameters()).device
    usable = {name: array for name, array in arrays.items() if _kind(array) not in "USO"}
    tensors = {name: torch.as_tensor(array).to(device) for name, array in usable.items()}
    dtype = widest(tensors)
    return {n: t.to(dtype if t.is_floating_point() else torch.int64) for n, t in tensors.items()}


def widest(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The widest floating dtype; float64 where there is none, since nothing asks for less."""
    floating = [tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()]
    return reduce(torch.promote_types, floating) if floating else torch.float64


def evaluation_copy(model: Network, dtype: torch.dtype) -> Network:
    """A copy in evaluation mode, without the equilibrium layer.

    The layer's report may hang on a graph that has no copy.
    """
    layer = getattr(model, "equilibrium", None)
    memo: dict[int, Any] = {} if layer is None else {id(layer): nn.Identity()}
    return copy.deepcopy(model, memo).to(dtype).eval()


def as_arrays(found: Mapping[str, Tensor]) -> dict[str, ndarray]:
    """Tensors as numpy arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in found.items()}


def needed(given: Mapping[str, Tensor], name: str, what: str) -> Tensor:
    """The array `name`. Raises DoesNotFit, saying `what` it is, where it is missing."""
    if name not in given:
        raise DoesNotFit(f"the arrays need '{name}', {what}")
    return given[name]


def repeated(f: Function, z0: Tensor, inputs: tuple[Tensor, ...], times: int) -> Tensor:
    """f applied `times` times from z0, as in the published warm-up."""
    z: State = z0
    for _ in range(times):
        z = f(z, *inputs)
    assert isinstance(z, Tensor)
    return z


def _kind(array: Any) -> str:
    return str(getattr(getattr(array, "dtype", None), "kind", "f"))
