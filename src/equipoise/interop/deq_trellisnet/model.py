"""A published equilibrium trellis network as ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from equipoise.equilibrium import Equilibrium, Exact, GradientEstimator, Solver
from equipoise.interop.deq_trellisnet.names import published_name
from equipoise.interop.deq_trellisnet.state_dict import primary
from equipoise.interop.errors import DoesNotFit
from equipoise.interop.published_weights import in_widest, load
from equipoise.interop.sequence_configuration import (
    PublishedArguments,
    lines,
    solver_lines,
    solvers_of_2020,
    task_of,
)
from equipoise.interop.trellis_weights import tied, widths, with_split_softmax
from equipoise.models import DEQTrellisNet

THRESHOLD = 45


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> DEQTrellisNet:
    """Return the network with its weights, in float64 if they are and float32 otherwise.

    The published file leaves the split softmax's tail_vectors and tail_bias out; they are zero
    unless the state dict has them. Raises DoesNotFit, a ValueError, where configuration and weights
    do not fit each other.
    """
    published = PublishedArguments(config)
    forward, backward = solvers_of_2020(published, THRESHOLD)
    layer = Equilibrium(solver or forward.build(), gradient or Exact(backward.build()))
    weights = primary(state_dict)
    arguments = architecture(published, weights)
    model = DEQTrellisNet(layer, **arguments)
    in_widest(model, weights)
    full = with_split_softmax(weights, len(model.ends.softmax.clusters) - 1)
    load(model, full, partial(published_name, weight_norm=arguments["weight_norm"]))
    return model


def architecture(published: PublishedArguments, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of our DEQTrellisNet, all but its equilibrium.

    Raises DoesNotFit for a dilation: the published code dilates but one of its two convolutions.
    """
    dilation = published.get("dilation", 1)
    if dilation not in (1, [1], (1,)):
        raise DoesNotFit(
            f"dilation is {dilation}; the equilibrium trellis network has 1, since the published "
            "code dilates the hidden units alone, neither the input nor the cells"
        )
    stated = {key: published.get(key, None) for key in ("nhid", "ninp", "nout")}
    hidden, embedding, output = widths(weights, stated, "trellisnet.func.full_conv.bias")
    return {
        "vocabulary": published.get("n_token", len(weights["encoder.weight"])),
        "hidden_width": hidden,
        "embedding_width": embedding,
        "output_width": output,
        "divisor": 1,
        "cutoffs": list(published.get("splits", [])),
        "weight_norm": "trellisnet.func.full_conv.weight_g" in weights,
        "input_dropout": published.get("dropouti", 0.0),
        "hidden_dropout": published.get("dropouth", 0.0),
        "output_dropout": published.get("dropout", 0.0),
        "tie_weights": tied(weights),
    }


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Return group choices and settings for task, model, solver and gradient."""
    published = PublishedArguments(config)
    arguments = architecture(published, primary(state_dict))
    vocabulary = arguments.pop("vocabulary")
    forward, backward = solvers_of_2020(published, THRESHOLD)
    return [
        *lines(task_of(published, vocabulary), "deq_trellisnet", vocabulary, arguments),
        *solver_lines("solver", "solver", forward),
        "gradient=exact",
        *solver_lines("solver@gradient.solver", "gradient.solver", backward),
        # The weights are trained: no phase of the recipe is left.
        "callbacks.gradient_schedule.phases=[]",
    ]
