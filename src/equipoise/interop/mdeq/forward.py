"""What the reference implementation records of MDEQ: injection, f, head, and equilibrium."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any, cast

import torch
from numpy import ndarray
from torch import Tensor

from equipoise.equilibrium import Anderson, Broyden, Equilibrium, JacobianFree
from equipoise.equilibrium.state import Function
from equipoise.interop.recorded_arrays import as_arrays, as_tensors, evaluation_copy, needed
from equipoise.models import MDEQ
from equipoise.models.mdeq.stem import zero_state
from equipoise.nn import weights_computed_once

RESOLVED = 50
"""The tight solve ends at so many times the round-off of the dtype, relative to the state."""


@torch.no_grad()
def reference_forward(model: MDEQ, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """Return inj/0, zstar_tight/i and logits_tight for the images x (B, C, H, W).

    Where z/0, z/1, ... are given, f/i and head_of_z are f and the head applied once to them. A
    model of two heads answers with the classification's. All is computed in the widest dtype of the
    arrays and the model's weights. Raises DoesNotFit where there is no x, and ValueError where the
    branches cannot halve the images.
    """
    given = as_tensors(arrays, model)
    image = needed(given, "x", "the images (batch, channels, H, W)")
    # Recorded images may be exact in float32 though all else about them is float64.
    dtype = torch.promote_types(image.dtype, next(model.parameters()).dtype)
    image, network = image.to(dtype), evaluation_copy(model, dtype)
    output = cast(Any, next(iter(network.heads)))
    network.size.check_image(image.shape[-2], image.shape[-1])
    injection = network.stem(image)
    f = weights_computed_once(network.cell)
    found = {"inj/0": injection}
    z = tuple(given[f"z/{i}"].to(dtype) for i in takewhile(lambda i: f"z/{i}" in given, count()))
    if z:
        found |= {f"f/{i}": value for i, value in enumerate(f(z, injection))}
        found["head_of_z"] = network.readout(z, output)
    state = _tight(f, zero_state(injection, network.size.channels), injection)
    found |= {f"zstar_tight/{i}": value for i, value in enumerate(state)}
    found["logits_tight"] = network.readout(state, output)
    return as_arrays(found)


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
