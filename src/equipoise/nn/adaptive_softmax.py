"""Softmax and embeddings of a large vocabulary, cut into clusters of falling frequency."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.nn.computed_weight import INITIAL_STD

IGNORED = -100
"""The target of a place that does not count."""


class AdaptiveEmbedding(nn.Module):
    """Tokens (B, T) -> (B, T, width), times `scale`, by default sqrt(width).

    With divisor 1 there is one table (vocabulary, embedding_width), and a projection (width,
    embedding_width) only if the widths differ. With a larger divisor cluster i has its own table
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
        # Embedding every token is cheaper than selecting some, for which the host waits for a GPU.
        embedded = self._embedded(index, torch.where(inside, tokens - first, 0))
        return torch.where(inside.unsqueeze(-1), embedded, 0.0)

    def _embedded(self, index: int, rows: Tensor) -> Tensor:
        embedded = functional.embedding(rows, self.tables[index])
        if len(self.projections) == 0:
            return embedded
        return functional.linear(embedded, self.projections[index])


def drawn_parameters(shapes: list[tuple[int, int]], std: float) -> nn.ParameterList:
    """One parameter per shape, drawn from N(0, std)."""
    return nn.ParameterList([torch.empty(shape).normal_(std=std) for shape in shapes])


class VocabularyClusters:
    """The symbols 0 .. vocabulary - 1, the most frequent first, cut at `cutoffs`.

    Cluster i holds the symbols from `first[i]` up to, not including, `end[i]`. Cut-offs at or
    beyond the vocabulary are dropped, so that one list serves every vocabulary.
    """

    def __init__(self, vocabulary: int, cutoffs: Sequence[int] = ()) -> None:
        """Cut; raises ValueError if the vocabulary is empty or the cut-offs do not increase."""
        if vocabulary < 1:
            raise ValueError(f"a vocabulary has at least one symbol, not {vocabulary}")
        if any(a >= b for a, b in zip([0, *cutoffs], cutoffs, strict=False)):
            raise ValueError(f"cutoffs must increase from 1 or more, got {list(cutoffs)}")
        self.vocabulary = vocabulary
        self.cutoffs = tuple(cutoff for cutoff in cutoffs if cutoff < vocabulary)
        self.first = (0, *self.cutoffs)
        self.end = (*self.cutoffs, vocabulary)

    def __len__(self) -> int:
        return len(self.end)

    @property
    def sizes(self) -> list[int]:
        """The number of symbols of each cluster."""
        return [end - first for first, end in zip(self.first, self.end, strict=True)]

    def widths(self, width: int, divisor: int) -> list[int]:
        """The embedding width of each cluster, width // divisor^i.

        Raises ValueError if a width becomes 0.
        """
        if divisor < 1:
            raise ValueError(f"divisor must be at least 1, got {divisor}")
        widths = [width // divisor**index for index in range(len(self))]
        if widths[-1] < 1:
            raise ValueError(
                f"an embedding of width {width} divided by {divisor} for each further cluster "
                f"leaves nothing for cluster {len(self)}: use fewer cutoffs or a smaller divisor"
            )
        return widths


class AdaptiveSoftmax(nn.Module):
    """Log-probabilities of symbols from hidden states (..., width), cluster by cluster.

    log p(symbol) = head[symbol] for the first cluster, head[cluster] + tail[symbol] for the others,
    where the head has the first cluster's symbols and one column for each further cluster, counted
    from the end: cluster 1 is the last column. One cluster is a plain softmax. Widths, divisor and
    shapes are those of `AdaptiveEmbedding`; if `embedding_width` differs from `width`, or with a
    divisor above 1, each cluster has a projection (width, its width).

    Source: Grave et al. 2017 (arXiv 1609.04309); with divisor 1 the split softmax of Merity et al.
    2018 (arXiv 1803.08240).
    """

    def __init__(
        self,
        clusters: VocabularyClusters,
        width: int,
        *,
        embedding_width: int | None = None,
        divisor: int = 1,
        tied_to: AdaptiveEmbedding | None = None,
        tied_projections: Sequence[bool] = (),
        tied_tables: bool = True,
        std: float = INITIAL_STD,
    ) -> None:
        """Draw the parameters from N(0, std), or share them with the embedding `tied_to`.

        tied_tables: the tables are the embedding's parameters; tied_projections: for each cluster,
        whether its projection is shared; missing entries mean no. Raises ValueError if the
        embedding has other widths.
        """
        super().__init__()
        self.clusters = clusters
        self.divisor = divisor
        embedding_width = embedding_width or width
        if tied_to is not None:
            _check_tie(tied_to, width, embedding_width, divisor)
        widths = clusters.widths(embedding_width, divisor)
        if divisor == 1:
            shapes = [(clusters.vocabulary, embedding_width)]
        else:
            shapes = list(zip(clusters.sizes, widths, strict=True))
        self.tables = tied_to.tables if tied_to and tied_tables else drawn_parameters(shapes, std)
        self.biases = nn.ParameterList([torch.zeros(rows) for rows, _ in shapes])
        further = len(clusters) - 1
        drawn = torch.empty(further, widths[0]).normal_(std=std)
        self.cluster_weight = nn.Parameter(drawn) if further else None
        self.cluster_bias = nn.Parameter(torch.zeros(further)) if further else None
        projected = divisor > 1 or embedding_width != width
        inner_shapes = [(width, w) for w in widths] if projected else []
        self.projections = drawn_parameters(inner_shapes, std)
        for index, tied in enumerate(tied_projections):
            if projected and tied and tied_to is not None:
                self.projections[index] = tied_to.projections[index if divisor > 1 else 0]

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The negative log-likelihood in nats of targets (...) at hidden (..., width).

        It has the targets' shape; a target of -100 costs 0.
        """
        flat, symbols = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
        if len(self.clusters) == 1:
            losses = functional.cross_entropy(
                self._logits(0, flat), symbols, reduction="none", ignore_index=IGNORED
            )
        else:
            losses = self._clustered_losses(flat, symbols)
        return losses.view(targets.shape)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., vocabulary)."""
        head = log_softmax(self._head(hidden))
        parts = [head[..., : self.clusters.end[0]]]
        for index in range(1, len(self.clusters)):
            tail = log_softmax(self._logits(index, hidden))
            parts.append(head[..., -index, None] + tail)
        return torch.cat(parts, dim=-1)

    def _clustered_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        columns = torch.where(targets == IGNORED, 0, targets)
        members = []
        last = self.clusters.end[0] + len(self.clusters) - 1
        for index in range(1, len(self.clusters)):
            first, end = self.clusters.first[index], self.clusters.end[index]
            inside = (targets >= first) & (targets < end)
            columns = torch.where(inside, last - index, columns)
            # The host has to wait for the number of rare targets: a tail for all would not fit.
            members.append(inside.nonzero().squeeze(1))
        head = log_softmax(self._head(hidden))
        losses = -head.gather(1, columns.unsqueeze(1)).squeeze(1)
        for index, rows in enumerate(members, start=1):
            tail = log_softmax(self._logits(index, hidden[rows]))
            inside = (targets[rows] - self.clusters.first[index]).unsqueeze(1)
            losses = losses.index_add(0, rows, -tail.gather(1, inside).squeeze(1))
        return torch.where(targets == IGNORED, 0.0, losses)

    def _head(self, hidden: Tensor) -> Tensor:
        """Logits of the first cluster's symbols and of the further clusters."""
        weight, bias = self._weight(0)
        if self.cluster_weight is not None and self.cluster_bias is not None:
            weight = torch.cat((weight, self.cluster_weight))
            bias = torch.cat((bias, self.cluster_bias))
        return functional.linear(self._projected(0, hidden), weight, bias)

    def _logits(self, index: int, hidden: Tensor) -> Tensor:
        return functional.linear(self._projected(index, hidden), *self._weight(index))

    def _projected(self, index: int, hidden: Tensor) -> Tensor:
        return hidden @ self.projections[index] if len(self.projections) else hidden

    def _weight(self, index: int) -> tuple[Tensor, Tensor]:
        if self.divisor > 1:
            return self.tables[index], self.biases[index]
        rows = slice(self.clusters.first[index], self.clusters.end[index])
        return self.tables[0][rows], self.biases[0][rows]


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities over the last dimension, in float32 at least."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return functional.log_softmax(logits, dim=-1, dtype=dtype)


def _check_tie(embedding: AdaptiveEmbedding, width: int, inner: int, divisor: int) -> None:
    sizes, tied_sizes = (width, inner, divisor), (
        embedding.width, embedding.embedding_width, embedding.divisor
    )  # fmt: skip
    if sizes != tied_sizes:
        raise ValueError(
            f"a softmax of width, embedding width and divisor {sizes} cannot share the weights of "
            f"an embedding with {tied_sizes}"
        )
