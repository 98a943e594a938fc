"""What the reference implementation records of one segment of the equilibrium transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from equipoise.interop.errors import DoesNotFit
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    needed,
    repeated,
    widest,
)
from equipoise.interop.tight_solve import tight_solve
from equipoise.models import DEQTransformer
from equipoise.models.deq_transformer.cell import layer_norm
from equipoise.models.deq_transformer.model import Segment


@torch.no_grad()
def reference_forward(model: DEQTransformer, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """Return z_star, new_mem_z, new_mem_u, and of a target nll_token_order and loss.

    Takes data and target (T, B), the memory mem_z and mem_u (steps, B, channels) where there is
    one, and z_in (B, width, T) for attn_block_out and f_z_in, f applied once. Beside these there
    are the official order of the losses, by cluster, and us, word_emb. Raises DoesNotFit where
    there is no data, or half a memory.
    """
    given = as_tensors(arrays, model)
    network = evaluation_copy(model, widest(given))
    tokens = needed(given, "data", "the tokens (time, batch)").T
    memory = _memory(given)
    segment = network.segment(tokens, memory)
    z = tight_solve(segment.f, segment.z0, *segment.inputs)
    states, injections = network.next_memory(segment, z)
    found = {
        "word_emb": network.embedding(tokens),
        "us": _channels_first(segment.injections),
        "z_star": _channels_first(z),
        "unroll2": _channels_first(repeated(segment.f, segment.z0, segment.inputs, 2)),
        "new_mem_z": states.transpose(0, 1),
        "new_mem_u": injections.transpose(0, 1),
        **_losses(network, network.readout(z), given),
        **_one_evaluation(network, segment, given),
    }
    return as_arrays(found)


def _memory(given: Mapping[str, Tensor]) -> tuple[Tensor, ...] | None:
    names = [name for name in ("mem_z", "mem_u") if name in given]
    if len(names) == 1:
        raise DoesNotFit(f"'{names[0]}' alone is no memory: give mem_z and mem_u, or neither")
    return tuple(given[name].transpose(0, 1) for name in names) or None


def _losses(
    network: DEQTransformer, hidden: Tensor, given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    if "target" not in given:
        return {}
    losses = network.token_losses(hidden, given["target"].T).T
    clusters = network.softmax.clusters
    limits = torch.tensor(clusters.cutoffs, device=losses.device, dtype=torch.int64)
    of_cluster = torch.bucketize(given["target"].reshape(-1), limits, right=True)
    return {
        "nll_token_order": losses,
        "nll_official_order": losses.reshape(-1)[of_cluster.argsort(stable=True)],
        "loss": losses.mean(),
    }


def _one_evaluation(
    network: DEQTransformer, segment: Segment, given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    if "z_in" not in given:
        return {}
    z = given["z_in"].transpose(1, 2)
    reach = segment.injections.shape[1]
    scene = network.cell.attention.scene(network.positions(reach), z.shape[1], network.window)
    attended = network.cell.attend(scene, z, *segment.inputs)
    if network.cell.norm == "post":
        attended = layer_norm(attended)  # the published block ends with its norm, or begins with it
    evaluated = segment.f(z, *segment.inputs)
    assert isinstance(evaluated, Tensor)
    return {"attn_block_out": _channels_first(attended), "f_z_in": _channels_first(evaluated)}


def _channels_first(sequence: Tensor) -> Tensor:
    return sequence.transpose(1, 2)
