"""A published MDEQ as ours."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any, cast

import torch
from numpy import ndarray
from torch import Tensor

from equipoise.equilibrium import (
    Anderson,
    Broyden,
    Equilibrium,
    Exact,
    GradientEstimator,
    JacobianFree,
    Phantom,
    Solver,
)
from equipoise.equilibrium.state import Function
from equipoise.interop.mdeq.configuration import (
    MDEQConfiguration,
    architecture,
    backward_solver,
    forward_solver,
    phantom_steps,
)
from equipoise.interop.mdeq.weights import primary, published_name
from equipoise.interop.published_weights import load
from equipoise.interop.recorded_arrays import (
    RESOLVED,
    as_arrays,
    as_tensors,
    evaluation_copy,
    required,
)
from equipoise.models import MDEQ
from equipoise.models.mdeq.stem_and_heads import zero_state
from equipoise.nn import weights_computed_once


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> MDEQ:
    """The network with its weights, in float64 if they are and float32 otherwise.

    Raises DoesNotFit, a ValueError, where configuration and weights do not fit each other.
    """
    published = MDEQConfiguration(config)
    weights = primary(state_dict)
    layer = Equilibrium(
        solver or forward_solver(published).build(), gradient or published_gradient(published)
    )
    arguments = architecture(config, weights)
    # Any size that fits would do: all shapes are given, and every image is checked.
    side = arguments["stem_stride"] * 2 ** (len(arguments["channels"]) - 1)
    model = MDEQ(layer, image_size=side, **arguments)
    used = {name: tensor for name, tensor in weights.items() if not _unused(name, model)}
    load(model, used, published_name)
    return model


def published_gradient(published: MDEQConfiguration) -> GradientEstimator:
    """The phantom gradient if the configuration has one, otherwise the exact one."""
    phantom = phantom_steps(published)
    return Phantom(*phantom) if phantom else Exact(backward_solver(published).build())


def _unused(name: str, model: MDEQ) -> bool:
    """Whether the published f has the weight but never uses it, as after a single branch."""
    return len(model.size.channels) == 1 and name.startswith("fullstage.post_fuse_layers.")


@torch.no_grad()
def reference_forward(model: MDEQ, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """inj/0, zstar_tight/i and logits_tight for the images x (B, C, H, W).

    If z/0, z/1, ... are given, f/i and head_of_z are f and the head applied once to them. A model
    of two heads returns the classification's output. Everything is computed in the widest dtype of
    the arrays and the model's weights. Raises DoesNotFit if there is no x, and ValueError if the
    branches cannot halve the images.
    """
    inputs = as_tensors(arrays, model)
    image = required(inputs, "x", "the images (batch, channels, H, W)")
    # Recorded images may be exact in float32 though everything else is float64.
    dtype = torch.promote_types(image.dtype, next(model.parameters()).dtype)
    image, network = image.to(dtype), evaluation_copy(model, dtype)
    output = cast(Any, next(iter(network.heads)))
    network.size.check_image(image.shape[-2], image.shape[-1])
    injection = network.stem(image)
    f = weights_computed_once(network.cell)
    outputs = {"inj/0": injection}
    z = tuple(inputs[f"z/{i}"].to(dtype) for i in takewhile(lambda i: f"z/{i}" in inputs, count()))
    if z:
        outputs |= {f"f/{i}": value for i, value in enumerate(f(z, injection))}
        outputs["head_of_z"] = network.readout(z, output)
    state = _tight(f, zero_state(injection, network.size.channels), injection)
    outputs |= {f"zstar_tight/{i}": value for i, value in enumerate(state)}
    outputs["logits_tight"] = network.readout(state, output)
    return as_arrays(outputs)


def _tight(f: Function, z0: tuple[Tensor, ...], injection: Tensor) -> tuple[Tensor, ...]:
    """The fixed point to round-off: by Anderson's method, then by Broyden's for the rest.

    The layer warns of samples that end above the tolerance.
    """
    tolerance = RESOLVED * torch.finfo(z0[0].dtype).eps
    first = Anderson(max_steps=200, tol=tolerance, memory=8).solve(f, z0, injection)
    if bool(first.converged.all()):
        return cast(tuple[Tensor, ...], first.z)
    rest = Broyden(max_steps=200, tol=tolerance, memory=60)
    return cast(tuple[Tensor, ...], Equilibrium(rest, JacobianFree())(f, first.z, injection))
