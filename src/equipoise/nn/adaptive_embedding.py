"""Embeddings that are narrower for rare symbols."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.nn.linear import INITIAL_STD
from equipoise.nn.vocabulary_clusters import VocabularyClusters


class AdaptiveEmbedding(nn.Module):
    """Tokens (B, T) -> (B, T, width), times `scale`, which is sqrt(width) where none is given.

    With divisor 1 there is one table (vocabulary, embedding_width), and a projection (width,
    embedding_width) only where the widths differ. With a larger divisor cluster i has its own table
    of width embedding_width // divisor^i, and always a projection.

    Source: Baevski and Auli 2019 (arXiv 1809.10853), section 3; the scale is that of Transformer-XL
    (arXiv 1901.02860).
    """

    def __init__(
        self,
        clusters: VocabularyClusters,
        width: int,
        *,
        embedding_width: int | None = None,
        divisor: int = 1,
        scale: float | None = None,
        std: float = INITIAL_STD,
    ) -> None:
        """Draw tables and projections from N(0, std); `embedding_width` None means `width`."""
        super().__init__()
        self.clusters = clusters
        self.width = width
        self.embedding_width = embedding_width or width
        self.divisor = divisor
        self.scale = width**0.5 if scale is None else scale
        widths = clusters.widths(self.embedding_width, divisor)
        if divisor == 1:
            shapes, widths = [(clusters.vocabulary, self.embedding_width)], widths[:1]
        else:
            shapes = list(zip(clusters.sizes, widths, strict=True))
        projected = divisor > 1 or self.embedding_width != width
        self.tables = drawn_parameters(shapes, std)
        shapes = [(width, w) for w in widths] if projected else []
        self.projections = drawn_parameters(shapes, std)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, width)."""
        if len(self.tables) == 1:
            embedded = self._embedded(0, tokens)
        else:
            parts = [self._cluster(index, tokens) for index in range(len(self.tables))]
            embedded = torch.stack(parts).sum(dim=0)
        return embedded * self.scale

    def _cluster(self, index: int, tokens: Tensor) -> Tensor:
        """The embedding of one cluster's tokens, zero for all others."""
        first, end = self.clusters.first[index], self.clusters.end[index]
        inside = (tokens >= first) & (tokens < end)
        # Embedding every token is cheaper than picking the right ones, which stops a GPU.
        embedded = self._embedded(index, torch.where(inside, tokens - first, 0))
        return torch.where(inside.unsqueeze(-1), embedded, 0.0)

    def _embedded(self, index: int, rows: Tensor) -> Tensor:
        embedded = functional.embedding(rows, self.tables[index])
        if len(self.projections) == 0:
            return embedded
        return functional.linear(embedded, self.projections[index])


def drawn_parameters(shapes: list[tuple[int, int]], std: float) -> nn.ParameterList:
    """Return one parameter a shape, drawn from N(0, std)."""
    return nn.ParameterList([torch.empty(shape).normal_(std=std) for shape in shapes])
