"""The published equilibrium trellis network: configuration, weights, model and recorded arrays.

Source: 1909.01377 (code of 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from equipoise.equilibrium import Equilibrium, Exact, GradientEstimator, Solver
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
from equipoise.interop.published_trellis import (
    ENDS,
    SPLIT_NAMES,
    shared_arguments,
    taps_in_a_row,
    with_split_softmax,
)
from equipoise.interop.published_weights import (
    WEIGHT_NORM_RULES,
    by_our_names,
    by_rules,
    load,
    primary_entries,
)
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    repeated,
    required,
    tight_solve,
    widest,
)
from equipoise.models import DEQTrellisNet

NAME = "DEQ-TrellisNet"
THRESHOLD = 45

COPIES = ("trellisnet.func_copy.", "trellisnet.deq.func_copy.")
"""Frozen copies of f, from the previous forward."""
SECOND_NAME = ("trellisnet.deq.func.", "trellisnet.func.")
RULES = [
    (r"cell\.inward\.", r"trellisnet.inject_conv."),
    (r"cell\.recurrent\.", r"trellisnet.func.full_conv."),
]


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every weight once; both taps of a kernel are in one row, that of t - 1 first."""
    return taps_in_a_row(primary_entries(checkpoint, SECOND_NAME, copies=COPIES))


def published_name(name: str, weight_norm: bool = True) -> str:
    """The published name of our parameter `name`, with or without weight norm.

    Without weight norm the directions are the weights.
    """
    published = by_rules(name, [*RULES, *WEIGHT_NORM_RULES])
    if not weight_norm and published.endswith(".weight_v"):
        published = published.removesuffix("_v")
    return ENDS.get(published, published)


def in_our_names(state_dict: Mapping[str, Any], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that `ours` has; others keep their published name."""
    weights = primary(state_dict)
    published = partial(published_name, weight_norm="trellisnet.func.full_conv.weight_g" in weights)
    return by_our_names(weights, ours, published)


def architecture(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of our DEQTrellisNet, except its equilibrium.

    Raises DoesNotFit for a dilation: the published code dilates only one of its two convolutions.
    """
    published = PublishedConfiguration(config, NAME)
    dilation = published.get("dilation", 1)
    if dilation not in (1, [1], (1,)):
        raise DoesNotFit(
            f"dilation is {dilation}; the equilibrium trellis network has 1, since the published "
            "code dilates only the hidden units, neither the input nor the cells"
        )
    shared = shared_arguments(published, weights, "trellisnet.func.full_conv.bias")
    return {
        "vocabulary": published.get("n_token", len(weights["encoder.weight"])),
        **shared,
        "weight_norm": "trellisnet.func.full_conv.weight_g" in weights,
    }


def solvers(config: Mapping[str, Any]) -> tuple[SolverChoice, SolverChoice]:
    """The forward and the backward solver, with the defaults of the published script."""
    return solvers_of_2020(config, THRESHOLD)


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Group choices and settings for task, model, solver and gradient."""
    arguments = architecture(config, primary(state_dict))
    forward, backward = solvers(config)
    return [
        *token_lines("deq_trellisnet", PublishedConfiguration(config, NAME), arguments),
        *layer_lines(forward, exact_lines(backward)),
    ]


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> DEQTrellisNet:
    """The network with its weights, in float64 if they are and float32 otherwise.

    The published file omits the split softmax's tail_vectors and tail_bias; they are zero unless
    the state dict has them. Raises DoesNotFit, a ValueError, if configuration and weights do not
    fit each other.
    """
    forward, backward = solvers(config)
    layer = Equilibrium(solver or forward.build(), gradient or Exact(backward.build()))
    weights = primary(state_dict)
    arguments = architecture(config, weights)
    model = DEQTrellisNet(layer, **arguments)
    full = with_split_softmax(weights, len(model.ends.softmax.clusters) - 1)
    load(model, full, partial(published_name, weight_norm=arguments["weight_norm"]))
    return model


@torch.no_grad()
def reference_forward(model: DEQTrellisNet, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """emb, us, z_star, unroll12, hidden_out, and if there is a target, loss_split and loss_full.

    Takes data and target (T, B), z0 (B, channels, 1), the state of the previous step, if there is
    one, and z_in (B, channels, T) for f_z_in, f applied once; tail_vectors and tail_bias, with or
    without `crit/`, replace those of the model. Raises DoesNotFit if there is no data.
    """
    inputs = as_tensors(arrays, model)
    network = evaluation_copy(model, widest(inputs))
    _take_split_softmax(network, inputs)
    tokens = required(inputs, "data", "the tokens (time, batch)").T
    memory = (inputs["z0"].transpose(1, 2),) if "z0" in inputs else None
    segment = network.segment(tokens, memory)
    z = tight_solve(segment.f, segment.z0, *segment.inputs)
    hidden = network.readout(z)
    outputs = {
        "emb": network.ends.embed(tokens).transpose(1, 2),
        "us": segment.inputs[0].transpose(1, 2),
        "z_star": z.transpose(1, 2),
        "unroll12": repeated(segment.f, segment.z0, segment.inputs, 12).transpose(1, 2),
        "hidden_out": hidden.transpose(0, 1),
        **_losses(network, hidden, inputs),
    }
    if "z_in" in inputs:
        evaluated = segment.f(inputs["z_in"].transpose(1, 2), *segment.inputs)
        assert isinstance(evaluated, Tensor)
        outputs["f_z_in"] = evaluated.transpose(1, 2)
    return as_arrays(outputs)


def _take_split_softmax(network: DEQTrellisNet, inputs: Mapping[str, Tensor]) -> None:
    softmax = network.ends.softmax
    owned = dict(zip(SPLIT_NAMES, (softmax.cluster_weight, softmax.cluster_bias), strict=True))
    for name, array in inputs.items():
        parameter = owned.get(name.replace("/", ".").rpartition(".")[2])
        if parameter is not None:
            parameter.copy_(array)


def _losses(
    network: DEQTrellisNet, hidden: Tensor, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    if "target" not in inputs:
        return {}
    targets = inputs["target"].T
    softmax = network.ends.softmax
    logits = functional.linear(hidden, softmax.tables[0], softmax.biases[0])
    return {
        "loss_split": network.token_losses(hidden, targets).mean(),
        "loss_full": functional.cross_entropy(logits.flatten(0, 1), targets.flatten()),
    }
