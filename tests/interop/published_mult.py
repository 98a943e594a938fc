"""The published MulT written out step by step: time first, one head and one query at a time.

Names and layouts of the weights are the published ones. A stream's steps come first, as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]
Words = dict[str, Any]
LETTERS = "lav"
SOURCES = {"l": "av", "a": "lv", "v": "la"}
WORDS: Words = {
    "attn_dropout": 0.1, "attn_dropout_a": 0.0, "attn_dropout_v": 0.0, "relu_dropout": 0.1,
    "res_dropout": 0.1, "out_dropout": 0.0, "embed_dropout": 0.25, "attn_mask": True,
    "lonly": True, "aonly": True, "vonly": True, "orig_d_l": 20, "orig_d_a": 5, "orig_d_v": 7,
    "num_heads": 5, "layers": 2, "output_dim": 1,
}  # fmt: skip


def targets(words: Words) -> str:
    return "".join(letter for letter in LETTERS if words[f"{letter}only"])


def shapes(words: Words) -> dict[str, tuple[int, ...]]:
    """Every entry of a published state dict: all memory encoders, all projections, buffers."""
    width, layers = words.get("d_model", 30), words["layers"]
    found: dict[str, tuple[int, ...]] = {
        f"proj_{letter}.weight": (width, words[f"orig_d_{letter}"], 1) for letter in LETTERS
    }
    for target in targets(words):
        for source in SOURCES[target]:
            found |= _encoder_shapes(f"trans_{target}_with_{source}", width, layers)
    for letter in LETTERS:
        found |= _encoder_shapes(f"trans_{letter}_mem", 2 * width, max(layers, 3))
    hidden = 2 * width * len(targets(words))
    for name in ("proj1", "proj2"):
        found |= {f"{name}.weight": (hidden, hidden), f"{name}.bias": (hidden,)}
    outputs = words["output_dim"]
    return found | {"out_layer.weight": (outputs, hidden), "out_layer.bias": (outputs,)}


def _encoder_shapes(name: str, width: int, layers: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        f"{name}.version": (1,),
        f"{name}.embed_positions._float_tensor": (1,),
        f"{name}.layer_norm.weight": (width,),
        f"{name}.layer_norm.bias": (width,),
    }
    for number in range(layers):
        layer = f"{name}.layers.{number}"
        found |= {
            f"{layer}.self_attn.in_proj_weight": (3 * width, width),
            f"{layer}.self_attn.in_proj_bias": (3 * width,),
            f"{layer}.self_attn.out_proj.weight": (width, width),
            f"{layer}.self_attn.out_proj.bias": (width,),
            f"{layer}.fc1.weight": (4 * width, width),
            f"{layer}.fc1.bias": (4 * width,),
            f"{layer}.fc2.weight": (width, 4 * width),
            f"{layer}.fc2.bias": (width,),
        }
        for norm in (0, 1):
            place = f"{layer}.layer_norms.{norm}"
            found |= {f"{place}.weight": (width,), f"{place}.bias": (width,)}
    return found


def drawn(words: Words, seed: int = 0, dtype: torch.dtype = torch.float64) -> Weights:
    """Random weights; norms near 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes(words).items():
        tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
        tensor *= shape[1] ** -0.5 if len(shape) > 1 else 0.3
        weights[name] = (tensor + ("norm" in name and name.endswith("weight"))).to(dtype)
    return weights


def streams(
    words: Words, lengths: Sequence[int], padding: Sequence[Sequence[int]], seed: int = 0
) -> dict[str, ndarray]:
    """x_l, x_a and x_v in float64; padding: the rows of zeros in front, by stream and sample."""
    random = np.random.default_rng(seed)
    arrays = {}
    for letter, length, rows in zip(LETTERS, lengths, padding, strict=True):
        array = random.normal(size=(len(rows), length, words[f"orig_d_{letter}"]))
        for sample, count in enumerate(rows):
            array[sample, : min(count, length)] = 0
        arrays[f"x_{letter}"] = array
    return arrays


def forward(words: Words, weights: Weights, arrays: Mapping[str, ndarray]) -> dict[str, Tensor]:
    """out, last_hs, and cap.* with the output (T, B, width) of every encoder that is read."""
    width, captured = words.get("d_model", 30), {}
    sequences = {}
    for letter in LETTERS:
        stream = torch.as_tensor(arrays[f"x_{letter}"]).transpose(1, 2)
        if words[f"orig_d_{letter}"] != width:
            stream = functional.conv1d(stream, weights[f"proj_{letter}.weight"])
        sequences[letter] = stream.permute(2, 0, 1)

    def encoded(name: str, query: Tensor, source: Tensor | None = None) -> Tensor:
        captured[f"cap.{name}"] = _encoder(words, weights, name, query, source)
        return captured[f"cap.{name}"]

    last = []
    for target in targets(words):
        crossed = [
            encoded(f"trans_{target}_with_{source}", sequences[target], sequences[source])
            for source in SOURCES[target]
        ]
        last.append(encoded(f"trans_{target}_mem", torch.cat(crossed, dim=2))[-1])
    hidden = torch.cat(last, dim=1)
    linear = _linear(weights)
    inner = linear("proj2", linear("proj1", hidden).clamp(min=0)) + hidden
    return {"out": linear("out_layer", inner), "last_hs": hidden, **captured}


def _linear(weights: Weights) -> Callable[[str, Tensor], Tensor]:
    return lambda name, x: x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _encoder(
    words: Words, weights: Weights, name: str, query: Tensor, source: Tensor | None
) -> Tensor:
    """(T, B, width), and a source (S, B, width) or the sequence itself -> (T, B, width)."""
    linear, x = _linear(weights), with_positions(query)
    offered = None if source is None else with_positions(source)
    seen = visible(len(query), len(query if source is None else source), words["attn_mask"])
    layer = 0
    while f"{name}.layers.{layer}.fc1.bias" in weights:
        place = f"{name}.layers.{layer}"
        key = _normal(weights, f"{place}.layer_norms.0", x if offered is None else offered)
        asking = _normal(weights, f"{place}.layer_norms.0", x)
        x = x + _attention(words["num_heads"], weights, f"{place}.self_attn", asking, key, seen)
        inner = linear(f"{place}.fc1", _normal(weights, f"{place}.layer_norms.1", x))
        x = x + linear(f"{place}.fc2", inner.clamp(min=0))
        layer += 1
    return _normal(weights, f"{name}.layer_norm", x)


def _normal(weights: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def visible(queries: int, keys: int, masked: bool) -> list[list[int]]:
    """The keys that each query sees."""
    offset = abs(keys - queries)
    return [[j for j in range(keys) if not masked or j <= i + offset] for i in range(queries)]


def _attention(
    heads: int, weights: Weights, name: str, query: Tensor, source: Tensor, seen: list[list[int]]
) -> Tensor:
    packed, bias = weights[f"{name}.in_proj_weight"], weights[f"{name}.in_proj_bias"]
    width = packed.shape[1]
    of_head = width // heads
    q = (query @ packed[:width].T + bias[:width]) * of_head**-0.5
    k = source @ packed[width : 2 * width].T + bias[width : 2 * width]
    v = source @ packed[2 * width :].T + bias[2 * width :]
    attended = torch.zeros_like(query)
    for head in range(heads):
        own = slice(head * of_head, (head + 1) * of_head)
        for i, keys in enumerate(seen):
            scores = torch.stack([(q[i, :, own] * k[j, :, own]).sum(dim=-1) for j in keys])
            exponentials = (scores - scores.amax(dim=0)).exp()
            mixture = exponentials / exponentials.sum(dim=0)
            attended[i, :, own] = (mixture[:, :, None] * v[keys][..., own]).sum(dim=0)
    return attended @ weights[f"{name}.out_proj.weight"].T + weights[f"{name}.out_proj.bias"]


def table(rows: int, width: int) -> Tensor:
    """Row p > 0 of the sinusoids in float32, as they are published; row 0 is of padding."""
    half = width // 2
    found = torch.zeros(rows, width, dtype=torch.float32)
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    for position in range(1, rows):
        angles = torch.tensor(position, dtype=torch.float32) * rates
        found[position, :half], found[position, half : 2 * half] = angles.sin(), angles.cos()
    return found


def positions(first_channel: Tensor) -> Tensor:
    """Of sequences (B, T): 0 where the channel is exactly 0, else the number of the step from 1."""
    numbers = torch.arange(1, first_channel.shape[1] + 1).expand(first_channel.shape)
    return torch.where(first_channel == 0.0, 0, numbers)


def with_positions(sequence: Tensor) -> Tensor:
    """sqrt(width) x + PE of (T, B, width), looked up row by row."""
    length, batch, width = sequence.shape
    looked_up = positions(sequence[:, :, 0].T)
    rows = table(length + 1, width).to(sequence.dtype)
    index = looked_up.reshape(-1, 1).expand(-1, width)
    encoded = rows.gather(0, index).reshape(batch, length, width)
    return math.sqrt(width) * sequence + encoded.transpose(0, 1)
