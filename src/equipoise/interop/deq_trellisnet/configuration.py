"""The published configurations of the equilibrium trellis network, as arguments of our class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from equipoise.interop.deq_trellisnet.weights import primary
from equipoise.interop.published_configuration import (
    DoesNotFit,
    PublishedConfiguration,
    token_lines,
)
from equipoise.interop.published_solvers import (
    SolverChoice,
    exact_lines,
    layer_lines,
    solvers_of_2020,
)
from equipoise.interop.published_trellis import shared_arguments

NAME = "DEQ-TrellisNet"
THRESHOLD = 45


def architecture(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of our DEQTrellisNet, all but its equilibrium.

    Raises DoesNotFit for a dilation: the published code dilates but one of its two convolutions.
    """
    published = PublishedConfiguration(config, NAME)
    dilation = published.get("dilation", 1)
    if dilation not in (1, [1], (1,)):
        raise DoesNotFit(
            f"dilation is {dilation}; the equilibrium trellis network has 1, since the published "
            "code dilates the hidden units alone, neither the input nor the cells"
        )
    shared = shared_arguments(published, weights, "trellisnet.func.full_conv.bias")
    return {
        "vocabulary": published.get("n_token", len(weights["encoder.weight"])),
        **shared,
        "weight_norm": "trellisnet.func.full_conv.weight_g" in weights,
    }


def solvers(config: Mapping[str, Any]) -> tuple[SolverChoice, SolverChoice]:
    """Return the forward and the backward solver, with the defaults of the published script."""
    return solvers_of_2020(config, THRESHOLD)


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Return group choices and settings for task, model, solver and gradient."""
    arguments = architecture(config, primary(state_dict))
    forward, backward = solvers(config)
    return [
        *token_lines("deq_trellisnet", PublishedConfiguration(config, NAME), arguments),
        *layer_lines(forward, exact_lines(backward)),
    ]
