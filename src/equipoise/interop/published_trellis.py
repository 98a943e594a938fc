"""What the published configurations and weights of both trellis networks have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equipoise.interop.published_configuration import DoesNotFit, PublishedConfiguration
from equipoise.interop.published_weights import same

SPLIT_NAMES = ("tail_vectors", "tail_bias")
WIDTHS = {"nhid": ("nhid",), "ninp": ("ninp",), "nout": ("nout",)}
ENDS = {
    "ends.embedding.tables.0": "encoder.weight",
    "ends.softmax.tables.0": "decoder.weight",
    "ends.softmax.biases.0": "decoder.bias",
    "ends.softmax.cluster_weight": "crit.tail_vectors",
    "ends.softmax.cluster_bias": "crit.tail_bias",
}
"""The published names of the parameters of our `TokenEnds`."""


def shared_arguments(
    published: PublishedConfiguration,
    weights: Mapping[str, Tensor],
    bias: str,
    keys: Mapping[str, tuple[str, ...]] = WIDTHS,
) -> dict[str, Any]:
    """The arguments that both networks take: widths, cut-offs, dropouts and ties.

    Widths are taken from one of their `keys`, or else from the weights, in which `bias` names that
    of the four gates. Raises DoesNotFit if one of the weights is missing.
    """
    for name in ("encoder.weight", "decoder.weight", bias):
        if name not in weights:
            raise DoesNotFit(f"the weights have no '{name}' of a published trellis network")
    encoder, decoder = weights["encoder.weight"], weights["decoder.weight"]
    output = published.first(keys["nout"]) or decoder.shape[1]
    return {
        "hidden_width": published.first(keys["nhid"]) or len(weights[bias]) // 4 - output,
        "embedding_width": published.first(keys["ninp"]) or encoder.shape[1],
        "output_width": output,
        "divisor": 1,
        "cutoffs": list(published.get("splits", [])),
        "input_dropout": published.get("dropouti", 0.0),
        "hidden_dropout": published.get("dropouth", 0.0),
        "output_dropout": published.get("dropout", 0.0),
        "tie_weights": same(encoder, decoder),
    }


def taps_in_a_row(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn kernels (out, in, 2) of the steps t - d and t into (out, 2 in), t - d first."""
    return {name: _row(tensor) for name, tensor in weights.items()}


def with_split_softmax(weights: Mapping[str, Tensor], further: int) -> dict[str, Tensor]:
    """Add the split softmax of `further` clusters, which the published files omit, as zeros.

    The published code initialises it so. If the state dict has one, under `crit.`, it is kept.
    """
    entries = {_split_name(name): tensor for name, tensor in weights.items()}
    if not further:
        return entries
    width = entries["decoder.weight"].shape[1]
    zeros = {"crit.tail_vectors": (further, width), "crit.tail_bias": (further,)}
    return {**{name: torch.zeros(shape) for name, shape in zeros.items()}, **entries}


def _row(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2).flatten(1) if tensor.dim() == 3 else tensor


def _split_name(name: str) -> str:
    last = name.replace("/", ".").rpartition(".")[2]
    return f"crit.{last}" if last in SPLIT_NAMES else name
