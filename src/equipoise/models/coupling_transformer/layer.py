"""Attention weakened by distances, a layer of it, and one whose fixed point replaces all layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from equipoise.models.coupling_transformer.distances import KINDS
from equipoise.models.coupling_transformer.embedding import linear
from equipoise.nn import sequence_mask, weights_computed_once

SLOPE = 0.01
"""Slope of the leaky ReLU between the heads and the map that joins them."""


class DistanceAttention(nn.Module):
    """o = W_o leaky_relu(softmax(q k^T / sqrt(d) - gamma_{a b} D) v), heads side by side.

    gamma (4, 4) is learned: one number for each pair of kinds (atom, pair, triplet, quad) of the
    two nodes, shared by all heads. W_o has no bias.

    Source: 2008.05994, supplementary material, and the code published with it, whose row layout
    `value_query_key` follows: for each head the rows of v, then q, then k.
    """

    def __init__(self, width: int, heads: int, *, dropout: float, weight_norm: bool) -> None:
        """dropout: of the weights. Raises ValueError unless `heads` divides `width`."""
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.dropout = dropout
        self.gamma = nn.Parameter(torch.ones(len(KINDS), len(KINDS)))
        self.value_query_key = linear(width, 3 * width, weight_norm=weight_norm)
        self.output = linear(width, width, bias=False, weight_norm=weight_norm)

    def bias(self, distances: Tensor, present: Tensor, counts: tuple[int, ...]) -> Tensor:
        """-gamma D (B, N, N), and -inf for keys (B, N) that are not present.

        counts: how many nodes there are of each kind.
        """
        unit = torch.eye(len(KINDS), dtype=self.gamma.dtype, device=self.gamma.device)
        kinds = torch.cat([row.expand(n, -1) for row, n in zip(unit, counts, strict=False)])
        weakened = distances * -(kinds @ self.gamma @ kinds.mT)
        return weakened.masked_fill(~present.unsqueeze(1), float("-inf"))

    def forward(self, x: Tensor, bias: Tensor, rows: slice = slice(None)) -> Tensor:
        """(B, N, width) and the bias (B, N, N) -> (B, M, width), for the nodes `rows` of N."""
        split = self.value_query_key(x).unflatten(-1, (self.heads, 3, -1))
        value, query, key = split.transpose(1, 2).unbind(dim=3)
        dropout = self.dropout if self.training else 0.0
        attended = attend(query[:, :, rows], key, value, bias[:, rows], dropout)
        merged = functional.leaky_relu(attended.transpose(1, 2).flatten(2), SLOPE)
        output: Tensor = self.output(merged)
        return output


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, dropout: float) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v: (B, H, M, d), (B, H, N, d) twice, (B, M, N).

    This is torch's fused attention, except on a CPU if the bias needs a gradient: torch would then
    keep the weights of all samples for the backward pass.
    """
    on_cpu = query.device.type == "cpu" and query.dtype == bias.dtype
    if on_cpu and not dropout and torch.is_grad_enabled():
        attended: Tensor = BiasedAttention.apply(query, key, value, bias)
        return attended
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias.unsqueeze(1).to(query.dtype), dropout_p=dropout
    )


class BiasedAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d) + b) v, with the weights recomputed for the gradients.

    They are computed sample by sample, so that they stay in the cache and only one sample's are in
    memory. With weights P, output o and its gradient do:

        dv = P^T do,  dS = P * (do v^T - rowsum(do * o)),  dq = dS k / sqrt(d),
        dk = dS^T q / sqrt(d),  db = the sum of dS over the heads.

    torch can differentiate these functions once more, as a regulariser may require.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, bias: Tensor
    ) -> Tensor:
        """(B, H, M, d), (B, H, N, d) twice, (B, M, N) -> (B, H, M, d)."""
        samples = zip(query, key, value, bias, strict=True)
        output = torch.stack([torch.matmul(weights(q, k, b), v) for q, k, v, b in samples])
        ctx.save_for_backward(query, key, value, bias, output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """The gradients of all four."""
        (gradient,) = gradients
        samples = zip(*ctx.saved_tensors, gradient, strict=True)
        found = [_gradients(*sample) for sample in samples]
        return tuple(torch.stack(part) for part in zip(*found, strict=True))


def weights(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + b) of one sample (H, M, N)."""
    scores = torch.baddbmm(bias.unsqueeze(0), query, key.mT, alpha=1 / math.sqrt(query.shape[-1]))
    return scores.softmax(dim=-1)


def _gradients(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, output: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one sample, from that of its output (H, M, d)."""
    attention, scale = weights(query, key, bias), 1 / math.sqrt(query.shape[-1])
    of_weights = gradient @ value.mT
    total = (gradient * output).sum(dim=-1, keepdim=True)
    if torch.is_grad_enabled():  # a second backward pass needs what is overwritten below
        of_scores = attention * (of_weights - total)
    else:
        of_scores = of_weights.sub_(total).mul_(attention)
    return (
        of_scores @ key * scale,
        of_scores.mT @ query * scale,
        attention.mT @ gradient,
        of_scores.sum(dim=0),
    )


class GraphLayer(nn.Module):
    """x <- x + A(LN(x)), x <- x + F(LN(x)), F a network of one hidden layer of ReLUs.

    Source: the code published with 2008.05994.
    """

    def __init__(
        self, width: int, heads: int, inner: int, *,
        dropout: float, attention_dropout: float, weight_norm: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention = DistanceAttention(
            width, heads, dropout=attention_dropout, weight_norm=weight_norm
        )
        self.norm = nn.LayerNorm(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.widen = linear(width, inner, weight_norm=weight_norm)
        self.narrow = linear(inner, width, weight_norm=weight_norm)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, bias: Tensor, present: Tensor, rows: slice = slice(None)
    ) -> Tensor:
        """(B, N, width) and the bias (B, N, N) -> (B, M, width), only for the nodes `rows` of N.

        present (B, N, 1): 0 for padding, which attends to nothing.
        """
        attended = self.attention(self.norm(x), bias, rows) * present[:, rows]
        x = x[:, rows] + self.dropout(attended)
        inner = self.dropout(functional.relu(self.widen(self.feed_forward_norm(x))))
        changed: Tensor = x + self.narrow(inner)
        return changed


class GraphCell(nn.Module):
    """f(z) = LN(h + F(h)), h = LN(u + A(z + u)): one layer with the embedded nodes u as injection.

    Norms and injection follow the equilibrium transformer (1909.01377, section 4.2), where
    attention sees the injection too: so even an estimator that uses a single evaluation trains the
    embeddings of nodes that are not read. No published system has this layer. The states of nodes
    that are not present are 0.
    """

    def __init__(
        self, width: int, heads: int, inner: int, *, dropout: float, weight_norm: bool
    ) -> None:
        super().__init__()
        self.attention = DistanceAttention(width, heads, dropout=0.0, weight_norm=weight_norm)
        self.norm = nn.LayerNorm(width)
        self.widen = linear(width, inner, weight_norm=weight_norm)
        self.narrow = linear(inner, width, weight_norm=weight_norm)
        self.last_norm = nn.LayerNorm(width)
        self.sizes = (width, inner)
        self.dropout = dropout

    def forward(
        self, z: Tensor, u: Tensor, bias: Tensor, present: Tensor, *masks: Tensor
    ) -> Tensor:
        """One evaluation (B, N, width); present (B, N, 1); masks: those of dropout."""
        of_attention, of_inner = masks or (1.0, 1.0)
        h = self.norm(u + self.attention(z + u, bias) * of_attention)
        inner = functional.relu(self.widen(h)) * of_inner
        state: Tensor = self.last_norm(h + self.narrow(inner)) * present
        return state

    def masks(self, like: Tensor) -> tuple[Tensor, ...]:
        """One mask (B, 1, features) each, the same for every node and every evaluation."""
        if not self.training or not self.dropout:
            return ()
        return tuple(
            sequence_mask(like, (like.shape[0], 1, size), self.dropout) for size in self.sizes
        )


class GraphEquilibrium(nn.Module):
    """The fixed point z* = f(z*, u) of a cell, from z = 0, by `layer(f, z0, *inputs)`."""

    def __init__(self, layer: nn.Module, cell: GraphCell) -> None:
        super().__init__()
        self.layer = layer
        self.cell = cell

    def forward(self, u: Tensor, bias: Tensor, present: Tensor) -> Tensor:
        """The embedded nodes (B, N, width) -> their equilibrium (B, N, width)."""
        there = present.unsqueeze(-1).to(u.dtype)
        f, z0 = weights_computed_once(self.cell), torch.zeros_like(u)
        z: Tensor = self.layer(f, z0, u * there, bias, there, *self.cell.masks(u))
        return z
