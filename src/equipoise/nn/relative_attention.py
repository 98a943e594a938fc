"""Causal self-attention with relative positions over a memory and a sequence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from equipoise.nn.computed_weight import INITIAL_STD, linear


class SinusoidalPositions(nn.Module):
    """The row of distance p is [sin(p w) | cos(p w)], w_i = 10000^(-2 i / width), i < width / 2.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, in the order of Transformer-XL.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        """Raises ValueError if the width is odd."""
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"sinusoidal positions need an even width, got {width}")
        self.register_buffer("frequencies", 1 / 10000 ** (torch.arange(0.0, width, 2) / width))

    def forward(self, length: int) -> Tensor:
        """Rows (length, width) for the distances length - 1, ..., 1, 0."""
        return self.at(torch.arange(length - 1, -1, -1, device=self.frequencies.device))

    def at(self, steps: Tensor) -> Tensor:
        """Rows (n, width) for whole numbers (n,), places or distances of either sign."""
        angles = torch.outer(steps.to(self.frequencies.dtype), self.frequencies)
        return torch.cat((angles.sin(), angles.cos()), dim=1)


class AttentionScene(NamedTuple):
    """What attention needs that depends neither on the state nor on the sample.

    positions (heads, memory + T + 1, head width): projected positions behind a row of zeros, the
    farthest first · mask (T, memory + T): 0, or minus infinity where a query may not look.
    """

    positions: Tensor
    mask: Tensor


class RelativeAttention(nn.Module):
    """o = W_o softmax(s) v with s_ij = [(q_i + b_c) k_j + (q_i + b_p) W_r r_(i-j)] / sqrt(d).

    q, k, v = W [memory; features] + injection, j runs over memory and sequence, and i looks back
    less than `window` steps, itself included. All heads together are as wide as the features, since
    the injection enters between the projection and the split into heads.

    Source: Dai et al. 2019 (arXiv 1901.02860), section 3.3; the injection is that of 1909.01377.
    """

    def __init__(self, width: int, heads: int, *, weight_norm: bool = False) -> None:
        """Raises ValueError unless `heads` divides `width`."""
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.query_key_value = linear(width, 3 * width, weight_norm=weight_norm, bias=False)
        self.position = linear(width, width, weight_norm=weight_norm, bias=False)
        self.output = linear(width, width, weight_norm=weight_norm)
        head_width = width // heads
        self.content_bias = nn.Parameter(torch.empty(heads, head_width).normal_(std=INITIAL_STD))
        self.position_bias = nn.Parameter(torch.empty(heads, head_width).normal_(std=INITIAL_STD))
        self.scale = head_width**-0.5

    def scene(self, positions: Tensor, length: int, window: int | None = None) -> AttentionScene:
        """Project `positions` (memory + T, width), the farthest first; T is `length`."""
        reach = len(positions)
        split = self.position(positions).view(reach, self.heads, -1).transpose(0, 1)
        # The row of zeros allows the shift to be a view.
        padded = torch.cat((split.new_zeros(self.heads, 1, split.shape[-1]), split), dim=1)
        steps = torch.arange(reach, device=positions.device)
        distance = (steps[reach - length :, None] - steps).to(torch.int64)
        hidden = distance < 0
        if window is not None:
            hidden |= distance >= window
        mask = torch.zeros(hidden.shape, dtype=positions.dtype, device=positions.device)
        return AttentionScene(padded, mask.masked_fill(hidden, float("-inf")))

    def remember(self, memory: Tensor, injection: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, M, width) of a memory (B, M, width), injection (B, M, 3 width)."""
        _, key, value = (self.query_key_value(memory) + injection).chunk(3, dim=-1)
        return key, value

    def forward(
        self,
        features: Tensor,
        injection: Tensor,
        key: Tensor,
        value: Tensor,
        scene: AttentionScene,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """(B, T, width), (B, T, 3 width), the memory's key and value (B, M, width) -> (B, T, ...).

        dropped (B, heads, T, M + T): a mask on the attention's weights.
        """
        query, new_key, new_value = (self.query_key_value(features) + injection).chunk(3, dim=-1)
        query = self._heads(query)
        keys = self._heads(torch.cat((key.to(new_key.dtype), new_key), dim=1))
        values = self._heads(torch.cat((value.to(new_value.dtype), new_value), dim=1))
        weights = torch.softmax(self._scores(query, keys, scene), dim=-1)
        if dropped is not None:
            weights = weights * dropped.transpose(0, 1).flatten(0, 1)
        looked_up = torch.bmm(weights.to(values.dtype), values.flatten(0, 1))
        merged = looked_up.view(query.shape).permute(1, 2, 0, 3).flatten(2)
        attended: Tensor = self.output(merged)
        return attended

    def _heads(self, features: Tensor) -> Tensor:
        """(B, T, width) -> (heads, B, T, head width)."""
        batch, length, _ = features.shape
        return features.view(batch, length, self.heads, -1).permute(2, 0, 1, 3)

    def _scores(self, query: Tensor, key: Tensor, scene: AttentionScene) -> Tensor:
        """(heads, B, T, d), (heads, B, K, d) -> (heads * B, T, K), masked.

        Row i of `far` holds the distances K - 1 .. 0 after one more column; reading from the T-th
        entry on, in rows of K instead of K + 1, shifts each row to its own distances, and the
        future is masked. Heads come first, so that all samples share one product.
        """
        heads, batch, length, width = query.shape
        reach = key.shape[2]
        content = (query + self.content_bias[:, None, None]) * self.scale
        position = (query + self.position_bias[:, None, None]) * self.scale
        far = torch.bmm(position.reshape(heads, -1, width), scene.positions.transpose(1, 2))
        near = far.view(heads * batch, -1)[:, length:].view(heads * batch, length, reach)
        key = key.reshape(heads * batch, reach, width)
        content = content.reshape(heads * batch, length, width)
        scores = torch.baddbmm(near, content, key.transpose(1, 2))
        return scores + scene.mask.to(scores.dtype)
