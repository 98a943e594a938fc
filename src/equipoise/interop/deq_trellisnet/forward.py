"""What the reference implementation records of one segment of the equilibrium trellis network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    needed,
    repeated,
    widest,
)
from equipoise.interop.tight_solve import tight_solve
from equipoise.interop.trellis_weights import SPLIT_NAMES
from equipoise.models import DEQTrellisNet


@torch.no_grad()
def reference_forward(model: DEQTrellisNet, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """Return emb, us, z_star, unroll12, hidden_out, and of a target loss_split and loss_full.

    Takes data and target (T, B), z0 (B, channels, 1), the state of the step before, where there is
    one, and z_in (B, channels, T) for f_z_in, f applied once; tail_vectors and tail_bias, with or
    without `crit/`, replace those of the model. Raises DoesNotFit where there is no data.
    """
    given = as_tensors(arrays, model)
    network = evaluation_copy(model, widest(given))
    _take_split_softmax(network, given)
    tokens = needed(given, "data", "the tokens (time, batch)").T
    memory = (given["z0"].transpose(1, 2),) if "z0" in given else None
    segment = network.segment(tokens, memory)
    z = tight_solve(segment.f, segment.z0, *segment.inputs)
    hidden = network.readout(z)
    found = {
        "emb": network.ends.embed(tokens).transpose(1, 2),
        "us": segment.inputs[0].transpose(1, 2),
        "z_star": z.transpose(1, 2),
        "unroll12": repeated(segment.f, segment.z0, segment.inputs, 12).transpose(1, 2),
        "hidden_out": hidden.transpose(0, 1),
        **_losses(network, hidden, given),
    }
    if "z_in" in given:
        evaluated = segment.f(given["z_in"].transpose(1, 2), *segment.inputs)
        assert isinstance(evaluated, Tensor)
        found["f_z_in"] = evaluated.transpose(1, 2)
    return as_arrays(found)


def _take_split_softmax(network: DEQTrellisNet, given: Mapping[str, Tensor]) -> None:
    softmax = network.ends.softmax
    owned = dict(zip(SPLIT_NAMES, (softmax.cluster_weight, softmax.cluster_bias), strict=True))
    for name, array in given.items():
        parameter = owned.get(name.replace("/", ".").rpartition(".")[2])
        if parameter is not None:
            parameter.copy_(array)


def _losses(
    network: DEQTrellisNet, hidden: Tensor, given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    if "target" not in given:
        return {}
    targets = given["target"].T
    softmax = network.ends.softmax
    logits = functional.linear(hidden, softmax.tables[0], softmax.biases[0])
    return {
        "loss_split": network.token_losses(hidden, targets).mean(),
        "loss_full": functional.cross_entropy(logits.flatten(0, 1), targets.flatten()),
    }
