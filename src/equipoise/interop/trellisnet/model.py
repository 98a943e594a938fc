"""A published explicit trellis network as ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from numpy import ndarray
from torch.nn import functional

from equipoise.equilibrium import GradientEstimator, Solver
from equipoise.interop.published_configuration import DoesNotFit
from equipoise.interop.published_trellis import with_split_softmax
from equipoise.interop.published_weights import load
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    required,
    widest,
)
from equipoise.interop.trellisnet.configuration import architecture
from equipoise.interop.trellisnet.weights import primary, published_name
from equipoise.models import TrellisNet


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> TrellisNet:
    """Return the network with its weights, in float64 if they are and float32 otherwise.

    Raises DoesNotFit, a ValueError, where configuration and weights do not fit each other, or a
    solver or gradient is given to a network that has none.
    """
    if solver is not None or gradient is not None:
        raise DoesNotFit("the explicit trellis network has neither a solver nor an estimator")
    weights = primary(state_dict)
    arguments = architecture(config, weights)
    model = TrellisNet(**arguments)
    full = with_split_softmax(weights, len(model.ends.softmax.clusters) - 1)
    load(model, full, partial(published_name, weight_norm=arguments["weight_norm"]))
    return model


@torch.no_grad()
def reference_forward(model: TrellisNet, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """Return raw_out, logits, h1, c1, and of auxiliary outputs aux_logits.

    Takes data (B, T), and h0 and c0 (B, width, 1), the state of the step before, where there is
    one. Raises DoesNotFit where there is no data, or half a state.
    """
    inputs = as_tensors(arrays, model)
    network = evaluation_copy(model, widest(inputs))
    names = [name for name in ("h0", "c0") if name in inputs]
    if len(names) == 1:
        raise DoesNotFit(f"'{names[0]}' alone is no state: give h0 and c0, or neither")
    earlier = [inputs[name].transpose(1, 2) for name in names]
    memory = (torch.cat(earlier, dim=2),) if earlier else None
    output = network(required(inputs, "data", "the tokens (batch, time)"), memory)
    softmax = network.ends.softmax
    read = (functional.linear(h, softmax.tables[0], softmax.biases[0]) for h in output.auxiliary)
    auxiliary = list(read)
    h, c = output.memory[0].transpose(1, 2).chunk(2, dim=1)
    outputs = {
        "raw_out": output.hidden,
        "logits": functional.linear(output.hidden, softmax.tables[0], softmax.biases[0]),
        "h1": h,
        "c1": c,
    }
    return as_arrays(outputs | ({"aux_logits": torch.stack(auxiliary, dim=1)} if auxiliary else {}))
