"""A published MDEQ as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equipoise.equilibrium import Equilibrium, Exact, GradientEstimator, Phantom, Solver
from equipoise.interop.errors import DoesNotFit
from equipoise.interop.mdeq.configuration import Published, architecture
from equipoise.interop.mdeq.names import published_name
from equipoise.interop.mdeq.state_dict import primary
from equipoise.interop.mdeq.training import backward_solver, forward_solver, phantom_steps
from equipoise.models import MDEQ

MOST_NAMED = 6
LAYER = "equilibrium."
"""What the equilibrium layer may keep for itself is no weight."""


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> MDEQ:
    """Return the network with its weights, in float64 if they are and float32 otherwise.

    Raises DoesNotFit, a ValueError, where configuration and weights do not fit each other.
    """
    published = Published(config)
    weights = primary(state_dict)
    layer = Equilibrium(
        solver or forward_solver(published).build(), gradient or published_gradient(published)
    )
    arguments = architecture(config, weights)
    # Any size that fits would do: the shapes are all given, and every image is checked.
    side = arguments["stem_stride"] * 2 ** (len(arguments["channels"]) - 1)
    model = MDEQ(layer, image_size=side, **arguments)
    if any(tensor.dtype == torch.float64 for tensor in weights.values()):
        model = model.double()
    load(model, weights)
    return model


def published_gradient(published: Published) -> GradientEstimator:
    """Return the phantom gradient where the configuration has one, else the exact one."""
    phantom = phantom_steps(published)
    return Phantom(*phantom) if phantom else Exact(backward_solver(published).build())


def load(model: MDEQ, weights: Mapping[str, Tensor]) -> None:
    """Copy weights under published names into the model.

    Raises DoesNotFit that names what is missing, what is unknown and what has another shape.
    """
    own = {name: t for name, t in model.state_dict().items() if not name.startswith(LAYER)}
    names = {published_name(name): name for name in own}
    given = {name: tensor for name, tensor in weights.items() if not _unused(name, model)}
    wrong = [
        f"{name} of shape {list(tensor.shape)} instead of {list(own[names[name]].shape)}"
        for name, tensor in given.items()
        if name in names and tensor.shape != own[names[name]].shape
    ]
    problems = {
        "missing": sorted(name for name in set(names) - set(given) if not _is_counter(name)),
        "unknown": sorted(set(given) - set(names)),
        "of another shape": wrong,
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {_listed(them)}" for kind, them in problems.items() if them)
        raise DoesNotFit(f"the weights do not fit the configuration; {listed}")
    model.load_state_dict({names[n]: tensor for n, tensor in given.items()}, strict=False)


def _is_counter(name: str) -> bool:
    """Whether it counts batches, which nothing reads: old versions of torch did not save it."""
    return name.endswith(".num_batches_tracked")


def _unused(name: str, model: MDEQ) -> bool:
    """Whether the published f owns the weight and never uses it, as behind a single branch."""
    return len(model.size.channels) == 1 and name.startswith("fullstage.post_fuse_layers.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
