"""A published equilibrium transformer as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from equipoise.equilibrium import Equilibrium, Exact, GradientEstimator, Solver
from equipoise.interop.deq_transformer.configuration import architecture, solvers
from equipoise.interop.deq_transformer.weights import is_of_2020, primary, published_name
from equipoise.interop.published_configuration import DoesNotFit
from equipoise.interop.published_weights import load
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    repeated,
    required,
    tight_solve,
    widest,
)
from equipoise.models import DEQTransformer
from equipoise.models.transformer.cell import layer_norm
from equipoise.models.transformer.deq_transformer import Segment


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> DEQTransformer:
    """The network with its weights, in float64 if they are and float32 otherwise.

    Projections that the published code calls tied are one parameter here. Raises DoesNotFit, a
    ValueError, if configuration and weights do not fit each other.
    """
    forward, backward = solvers(config, of_2020=is_of_2020(state_dict))
    weights = primary(state_dict)
    layer = Equilibrium(solver or forward.build(), gradient or Exact(backward.build()))
    model = DEQTransformer(layer, **architecture(config, weights))
    load(model, weights, published_name)
    return model


@torch.no_grad()
def reference_forward(model: DEQTransformer, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """z_star, new_mem_z, new_mem_u, and if there is a target, nll_token_order and loss.

    Takes data and target (T, B), the memory mem_z and mem_u (steps, B, channels) if there is one,
    and z_in (B, width, T) for attn_block_out and f_z_in, f applied once. Also returns the official
    order of the losses, by cluster, and us, word_emb. Raises DoesNotFit if there is no data, or
    only half a memory.
    """
    inputs = as_tensors(arrays, model)
    network = evaluation_copy(model, widest(inputs))
    tokens = required(inputs, "data", "the tokens (time, batch)").T
    memory = _memory(inputs)
    segment = network.segment(tokens, memory)
    z = tight_solve(segment.f, segment.z0, *segment.inputs)
    states, injections = network.next_memory(segment, z)
    outputs = {
        "word_emb": network.embedding(tokens),
        "us": _channels_first(segment.injections),
        "z_star": _channels_first(z),
        "unroll2": _channels_first(repeated(segment.f, segment.z0, segment.inputs, 2)),
        "new_mem_z": states.transpose(0, 1),
        "new_mem_u": injections.transpose(0, 1),
        **_losses(network, network.readout(z), inputs),
        **_one_evaluation(network, segment, inputs),
    }
    return as_arrays(outputs)


def _memory(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...] | None:
    names = [name for name in ("mem_z", "mem_u") if name in inputs]
    if len(names) == 1:
        raise DoesNotFit(f"'{names[0]}' alone is not a memory: give mem_z and mem_u, or neither")
    return tuple(inputs[name].transpose(0, 1) for name in names) or None


def _losses(
    network: DEQTransformer, hidden: Tensor, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    if "target" not in inputs:
        return {}
    losses = network.token_losses(hidden, inputs["target"].T).T
    clusters = network.softmax.clusters
    limits = torch.tensor(clusters.cutoffs, device=losses.device, dtype=torch.int64)
    of_cluster = torch.bucketize(inputs["target"].reshape(-1), limits, right=True)
    return {
        "nll_token_order": losses,
        "nll_official_order": losses.reshape(-1)[of_cluster.argsort(stable=True)],
        "loss": losses.mean(),
    }


def _one_evaluation(
    network: DEQTransformer, segment: Segment, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    if "z_in" not in inputs:
        return {}
    z = inputs["z_in"].transpose(1, 2)
    reach = segment.injections.shape[1]
    scene = network.cell.attention.scene(network.positions(reach), z.shape[1], network.window)
    attended = network.cell.attend(scene, z, *segment.inputs)
    if network.cell.norm == "post":
        attended = layer_norm(attended)  # the published block ends, or begins, with its norm
    evaluated = segment.f(z, *segment.inputs)
    assert isinstance(evaluated, Tensor)
    return {"attn_block_out": _channels_first(attended), "f_z_in": _channels_first(evaluated)}


def _channels_first(sequence: Tensor) -> Tensor:
    return sequence.transpose(1, 2)
