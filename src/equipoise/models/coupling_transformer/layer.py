"""A layer of the graph transformer, and one whose fixed point takes the place of all layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.coupling_transformer.attention import DistanceAttention
from equipoise.models.coupling_transformer.embedding import linear
from equipoise.nn import sequence_mask, weights_computed_once


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
        """(B, N, width) and the bias (B, N, N) -> (B, M, width), the nodes `rows` of N alone.

        present (B, N, 1): 0 for padding, which attends to nothing.
        """
        attended = self.attention(self.norm(x), bias, rows) * present[:, rows]
        x = x[:, rows] + self.dropout(attended)
        inner = self.dropout(functional.relu(self.widen(self.feed_forward_norm(x))))
        changed: Tensor = x + self.narrow(inner)
        return changed


class GraphCell(nn.Module):
    """f(z) = LN(h + F(h)), h = LN(u + A(z + u)): one layer with the embedded nodes u as injection.

    Norms and injection follow the equilibrium transformer (1909.01377, section 4.2), where the
    injection is attended to, too: so an estimator that looks at one evaluation alone still teaches
    the embeddings of nodes that are not read. No published system has this layer. The states of
    nodes that are not present are 0.
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
