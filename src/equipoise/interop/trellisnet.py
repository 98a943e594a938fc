"""The published explicit trellis network: configuration, weights, model and recorded arrays.

Source: 1810.06682.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from equipoise.equilibrium import GradientEstimator, Solver
from equipoise.interop.published_configuration import (
    DoesNotFit,
    PublishedConfiguration,
    token_lines,
)
from equipoise.interop.published_trellis import (
    ENDS,
    WIDTHS,
    shared_arguments,
    taps_in_a_row,
    with_split_softmax,
)
from equipoise.interop.published_weights import (
    bare_entries,
    by_our_names,
    load,
    primary_entries,
)
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    required,
    widest,
)
from equipoise.models import TrellisNet

NAME = "TrellisNet"

PREFIX = "tnet.full_conv"
SECOND_NAME = ("network.0.", "tnet.")
RAW = "_raw"


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every weight once, without the wrapper of the weight drop.

    That wrapper renames weight1_v to module.*.weight1_v_raw; a weight1_v beside it is the masked
    weight of the latest forward. `network.0.*` are second names. Both taps of a kernel are in one
    row, that of t - d first.
    """
    entries = bare_entries(checkpoint)
    lasting = {key: tensor for key, tensor in entries.items() if f"{key}{RAW}" not in entries}
    return taps_in_a_row(primary_entries(lasting, SECOND_NAME, renamed=_plain))


def published_name(name: str, weight_norm: bool = True) -> str:
    """The published name of our parameter `name`, without wrappers and weight drop's `_raw`.

    Without weight norm the directions are the weights.
    """
    direction = "_v" if weight_norm else ""
    names = {
        "cell.inward.weight.direction": f"{PREFIX}.weight1{direction}",
        "cell.inward.weight.length": f"{PREFIX}.weight1_g",
        "cell.recurrent.weight.direction": f"{PREFIX}.weight2{direction}",
        "cell.recurrent.weight.length": f"{PREFIX}.weight2_g",
        "cell.recurrent.bias": f"{PREFIX}.bias2",
    }
    return (names | ENDS).get(name, name)


def _plain(key: str) -> str:
    return key.replace(".module.", ".").removesuffix(RAW)


def in_our_names(state_dict: Mapping[str, Any], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that `ours` has; others keep their published name."""
    weights = primary(state_dict)
    published = partial(published_name, weight_norm=f"{PREFIX}.weight1_g" in weights)
    return by_our_names(weights, ours, published)


def architecture(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of our TrellisNet.

    Raises DoesNotFit if the number of levels is missing: the weights do not determine it.
    """
    published = PublishedConfiguration(config, NAME)
    widths = WIDTHS | {"ninp": ("ninp", "emsize")}
    shared = shared_arguments(published, weights, f"{PREFIX}.bias2", widths)
    dilation = published.get("dilation", [1])
    return {
        "vocabulary": published.first(("ntoken", "n_token")) or len(weights["encoder.weight"]),
        **shared,
        "levels": published.first(("nlevels", "levels")) or published.need("nlevels"),
        "dilations": list(dilation) if isinstance(dilation, Sequence) else [dilation],
        "auxiliary_every": published.first(("aux_frequency", "aux_freq")),
        "auxiliary_weight": float(published.get("aux", 0.0)),
        "weight_norm": f"{PREFIX}.weight1_g" in weights,
        "weight_drop": published.get("wdrop", 0.0),
    }


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Group choices and settings for task and model."""
    arguments = architecture(config, primary(state_dict))
    return token_lines("trellisnet", PublishedConfiguration(config, NAME), arguments)


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> TrellisNet:
    """The network with its weights, in float64 if they are and float32 otherwise.

    Raises DoesNotFit, a ValueError, if configuration and weights do not fit each other, or if a
    solver or gradient is given, since this network has none.
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
    """raw_out, logits, h1, c1, and with auxiliary outputs aux_logits.

    Takes data (B, T), and h0 and c0 (B, width, 1), the state of the previous step, if there is one.
    Raises DoesNotFit if there is no data, or only half a state.
    """
    inputs = as_tensors(arrays, model)
    network = evaluation_copy(model, widest(inputs))
    names = [name for name in ("h0", "c0") if name in inputs]
    if len(names) == 1:
        raise DoesNotFit(f"'{names[0]}' alone is not a state: give h0 and c0, or neither")
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
