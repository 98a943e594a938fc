"""A softmax over a large vocabulary that computes rare symbols only where they are needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.nn.adaptive_embedding import AdaptiveEmbedding, drawn_parameters
from equipoise.nn.linear import INITIAL_STD
from equipoise.nn.vocabulary_clusters import VocabularyClusters

IGNORED = -100
"""A target that does not count."""


class AdaptiveSoftmax(nn.Module):
    """Log-probabilities of symbols from hidden states (..., width), cluster by cluster.

    log p(symbol) = head[symbol] for the first cluster, head[cluster] + tail[symbol] for the others,
    where the head has the first cluster's symbols and one column for each further cluster, counted
    from the end: cluster 1 is the last column. One cluster is a plain softmax. Widths, divisor and
    shapes are those of `AdaptiveEmbedding`; where that of width `embedding_width` differs from
    `width`, or with a divisor above 1, each cluster has a projection (width, its width).

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
        whether its projection is; missing entries mean no. Raises ValueError where the embedding
        has other widths.
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
        own = [(width, w) for w in widths] if projected else []
        self.projections = drawn_parameters(own, std)
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
    wanted, got = (width, inner, divisor), (
        embedding.width, embedding.embedding_width, embedding.divisor
    )  # fmt: skip
    if wanted != got:
        raise ValueError(
            f"a softmax of width, embedding width and divisor {wanted} cannot share the weights of "
            f"an embedding with {got}"
        )
