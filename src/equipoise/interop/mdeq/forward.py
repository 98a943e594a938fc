"""What the reference implementation records of MDEQ: injection, f, head, and equilibrium."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import reduce
from itertools import count, takewhile
from typing import Any, cast

import torch
from numpy import ndarray
from torch import Tensor

from equipoise.equilibrium import Anderson, Broyden, Equilibrium, JacobianFree
from equipoise.equilibrium.state import Function
from equipoise.interop.errors import DoesNotFit
from equipoise.models import MDEQ
from equipoise.models.mdeq.stem import zero_state
from equipoise.nn import weights_computed_once

RESOLVED = 50
"""The tight solve ends at so many times the round-off of the dtype, relative to the state."""


@torch.no_grad()
def reference_forward(model: MDEQ, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """Return inj/0, zstar_tight/i and logits_tight for the images x (B, C, H, W).

    Where z/0, z/1, ... are given, f/i and head_of_z are f and the head applied once to them. A
    model of two heads answers with the classification's. Raises DoesNotFit where there is no x.
    """
    if "x" not in arrays:
        raise DoesNotFit("the arrays of an MDEQ need 'x', the images (batch, channels, H, W)")
    given = _tensors(arrays, next(model.parameters()).device)
    network = _copy(model).to(given["x"].dtype).eval()
    output = cast(Any, next(iter(network.heads)))
    injection = network.stem(given["x"])
    f = weights_computed_once(network.cell)
    found = {"inj/0": injection}
    z = tuple(given[f"z/{i}"] for i in takewhile(lambda i: f"z/{i}" in given, count()))
    if z:
        found |= {f"f/{i}": value for i, value in enumerate(f(z, injection))}
        found["head_of_z"] = network.readout(z, output)
    network.size.check_image(given["x"].shape[-2], given["x"].shape[-1])
    state = _tight(f, zero_state(injection, network.size.channels), injection)
    found |= {f"zstar_tight/{i}": value for i, value in enumerate(state)}
    found["logits_tight"] = network.readout(state, output)
    return {name: tensor.cpu().numpy() for name, tensor in found.items()}


def _tensors(arrays: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Every array as a tensor, all floating ones in the widest of their dtypes."""
    tensors = {name: torch.as_tensor(array) for name, array in arrays.items()}
    floating = {name: t for name, t in tensors.items() if t.is_floating_point()}
    widest = reduce(torch.promote_types, (t.dtype for t in floating.values()))
    return {name: t.to(device, widest) for name, t in floating.items()}


def _copy(model: MDEQ) -> MDEQ:
    """A copy without the equilibrium layer, whose report may hang on a graph that has no copy."""
    return copy.deepcopy(model, {id(model.equilibrium): torch.nn.Identity()})


def _tight(f: Function, z0: tuple[Tensor, ...], injection: Tensor) -> tuple[Tensor, ...]:
    """The fixed point to round-off: by Anderson's method, and what that leaves by Broyden's.

    The layer warns of samples that end above the tolerance.
    """
    tolerance = RESOLVED * torch.finfo(z0[0].dtype).eps
    first = Anderson(max_steps=200, tol=tolerance, memory=8).solve(f, z0, injection)
    if bool(first.converged.all()):
        return cast(tuple[Tensor, ...], first.z)
    rest = Broyden(max_steps=200, tol=tolerance, memory=60)
    return cast(tuple[Tensor, ...], Equilibrium(rest, JacobianFree())(f, first.z, injection))
