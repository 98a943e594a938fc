"""What the published weights of both trellis networks have in common."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from equipoise.interop.errors import DoesNotFit
from equipoise.interop.published_weights import same

SPLIT_NAMES = ("tail_vectors", "tail_bias")


def taps_in_a_row(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn kernels (out, in, 2) of the steps t - d and t into (out, 2 in), t - d first."""
    return {name: _row(tensor) for name, tensor in weights.items()}


def with_split_softmax(weights: Mapping[str, Tensor], further: int) -> dict[str, Tensor]:
    """Add the split softmax of `further` clusters, which the published files leave out: zeros.

    So it starts in the published code. Where the state dict has one, under `crit.`, it is kept.
    """
    named = {_split_name(name): tensor for name, tensor in weights.items()}
    if not further:
        return named
    width = named["decoder.weight"].shape[1]
    zeros = {"crit.tail_vectors": (further, width), "crit.tail_bias": (further,)}
    return {**{name: torch.zeros(shape) for name, shape in zeros.items()}, **named}


def widths(
    weights: Mapping[str, Tensor], stated: Mapping[str, int | None], bias: str
) -> tuple[int, int, int]:
    """Hidden, embedding and output width: as stated, else those of the weights.

    `bias` names that of the four gates. Raises DoesNotFit where one of the weights is missing.
    """
    for name in ("encoder.weight", "decoder.weight", bias):
        if name not in weights:
            raise DoesNotFit(f"the weights have no '{name}' of a published trellis network")
    embedding = stated["ninp"] or weights["encoder.weight"].shape[1]
    output = stated["nout"] or weights["decoder.weight"].shape[1]
    hidden = stated["nhid"] or len(weights[bias]) // 4 - output
    return hidden, embedding, output


def tied(weights: Mapping[str, Tensor]) -> bool:
    """Whether decoder and encoder are one table."""
    return same(weights["encoder.weight"], weights["decoder.weight"])


def ends_name(name: str) -> str | None:
    """The published name of a parameter of our `TokenEnds`; None for others."""
    return {
        "ends.embedding.tables.0": "encoder.weight",
        "ends.softmax.tables.0": "decoder.weight",
        "ends.softmax.biases.0": "decoder.bias",
        "ends.softmax.cluster_weight": "crit.tail_vectors",
        "ends.softmax.cluster_bias": "crit.tail_bias",
    }.get(name)


def _row(tensor: Tensor) -> Tensor:
    return tensor.transpose(1, 2).flatten(1) if tensor.dim() == 3 else tensor


def _split_name(name: str) -> str:
    last = name.replace("/", ".").rpartition(".")[2]
    return f"crit.{last}" if last in SPLIT_NAMES else name
