"""Attention from one sequence to another, and what each step may see of the other."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCK, FUSED = 128, 16
"""Queries in a block, and the multiple that the fused kernel prefers for widths: see `on_a_cpu`."""


class View(NamedTuple):
    """Which keys each query sees.

    visible: bool, (Q, K) or (B, 1, Q, K), True for keys that a query sees; None: by `triangular`
    alone, the lower triangle or everything. blind: (B, 1, Q, 1), True for a query that sees nothing
    and so attends to zeros; None if that cannot occur.
    """

    visible: Tensor | None = None
    blind: Tensor | None = None
    triangular: bool = False


def view(queries: int, keys: int, *, causal: bool, present: Tensor | None, like: Tensor) -> View:
    """Query i sees the keys j <= i + |keys - queries| if `causal`, among those that are present.

    present (B, keys): False for padding; None: all of them. The mask is on the device of `like`.
    The offset is the published one: for two sequences of the same length it leaves the lower
    triangle.
    """
    if present is None and queries == keys:
        return View(triangular=causal)
    seen = None
    if causal:
        everything = torch.ones(queries, keys, dtype=torch.bool, device=like.device)
        seen = everything.tril(abs(keys - queries))
    if present is None:
        return View(seen)
    of_samples = present[:, None, None, :]
    seen = of_samples.expand(-1, -1, queries, -1) if seen is None else seen & of_samples
    blind = ~seen.any(dim=-1, keepdim=True)
    return View(seen | blind, blind)


class Attention(nn.Module):
    """o = W_o softmax(q k^T / sqrt(d)) v in each head, q = W_q a + b_q, k and v alike.

    Keys and values may have another width than the queries. `dropout` applies to the weights.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2; crossmodal: 1906.00295, section
    3.1. The initial weights are those of one packed matrix, as published.
    """

    def __init__(
        self, width: int, heads: int, *, source_width: int | None = None, dropout: float = 0.0
    ) -> None:
        """Raises ValueError unless `heads` divides `width`."""
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.dropout = dropout
        source_width = source_width or width
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)
        self.output = nn.Linear(width, width)
        for part in (self.query, self.key, self.value):
            bound = math.sqrt(6 / (part.in_features + 3 * width))
            nn.init.uniform_(part.weight, -bound, bound)
        nn.init.xavier_uniform_(self.output.weight)
        for part in (self.query, self.key, self.value, self.output):
            nn.init.zeros_(part.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, seen: View) -> Tensor:
        """(B, Q, width), (B, K, source width) twice -> (B, Q, width)."""
        return self.read(query, self.key(key), self.value(value), seen)

    def read(self, query: Tensor, key: Tensor, value: Tensor, seen: View) -> Tensor:
        """As `forward`, with keys and values (B, K, width) that are already projected."""
        q, k, v = (self._split(part) for part in (self.query(query), key, value))
        dropout = self.dropout if self.training else 0.0
        if query.device.type == "cpu" and key.shape[1] > BLOCK:
            attended = on_a_cpu(q, k, v, seen, dropout)
        else:
            attended = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=seen.visible, dropout_p=dropout, is_causal=seen.triangular
            )
        if seen.blind is not None:
            attended = attended.masked_fill(seen.blind, 0.0)
        merged: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return merged

    def weights(self, query: Tensor, key: Tensor, seen: View) -> Tensor:
        """The weights (B, heads, Q, K) of unprojected keys (B, K, source width), no dropout."""
        asking, offered = self._split(self.query(query)), self._split(self.key(key))
        scores = asking @ offered.transpose(-1, -2) / math.sqrt(asking.shape[-1])
        visible = seen.visible
        if seen.triangular:
            visible = torch.ones_like(scores[0, 0], dtype=torch.bool).tril()
        if visible is not None:
            scores = scores.masked_fill(~visible, float("-inf"))
        weights = scores.softmax(dim=-1)
        return weights if seen.blind is None else weights.masked_fill(seen.blind, 0.0)

    def _split(self, features: Tensor) -> Tensor:
        """(B, T, width) -> (B, heads, T, head width)."""
        return features.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def on_a_cpu(query: Tensor, key: Tensor, value: Tensor, seen: View, dropout: float) -> Tensor:
    """The same attention (B, heads, Q, d), computed in a way that is faster on a CPU.

    torch's fused kernel prefers head widths that are multiples of 16; padding with zeros changes
    nothing. It also computes the upper triangle, unless the queries come in blocks, each with the
    keys that any of them sees. With dropout there is no fused kernel on a CPU.
    """
    width = query.shape[-1]
    if not dropout:
        wider = (0, -width % FUSED)
        query, key, value = (functional.pad(part, wider) for part in (query, key, value))
    attend = partial(
        functional.scaled_dot_product_attention, dropout_p=dropout, scale=1 / math.sqrt(width)
    )
    if not seen.triangular:
        return attend(query, key, value, seen.visible)[..., :width]
    blocks, length = [], query.shape[2]
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        visible = torch.ones(end - start, end, dtype=torch.bool).tril(start)
        rows = query[:, :, start:end]
        blocks.append(attend(rows, key[:, :, :end], value[:, :, :end], visible))
    return torch.cat(blocks, dim=2)[..., :width]
