"""What both trellis networks share: the ends, from tokens and to probabilities, and f."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from equipoise.models.trellisnet.cell import TrellisCell
from equipoise.models.trellisnet.sizes import Size
from equipoise.nn import AdaptiveEmbedding, AdaptiveSoftmax, VocabularyClusters, sequence_mask


class TokenEnds(nn.Module):
    """Embedding and softmax, tied or not, with variational dropout behind and in front of them."""

    head_parts = ("softmax",)
    vocabulary_parts = ("embedding", "softmax")

    def __init__(
        self,
        vocabulary: int,
        *,
        embedding_width: int,
        output_width: int,
        divisor: int,
        cutoffs: Sequence[int],
        input_dropout: float,
        output_dropout: float,
        tied: bool,
        initial_range: float,
    ) -> None:
        """Build both, tables drawn from -initial_range to initial_range.

        Raises ValueError if tied ends differ in width, or the range is not positive.
        """
        super().__init__()
        if tied and output_width != embedding_width:
            raise ValueError(
                f"an output of width {output_width} cannot share the weights of an embedding of "
                f"width {embedding_width}: set tie_weights=false, or one width for both"
            )
        if initial_range <= 0:
            raise ValueError(f"initial_range must be above 0, got {initial_range}")
        clusters = VocabularyClusters(vocabulary, cutoffs)
        self.output_width = output_width
        self.input_dropout = input_dropout
        self.output_dropout = output_dropout
        self.embedding = AdaptiveEmbedding(clusters, embedding_width, divisor=divisor, scale=1.0)
        self.softmax = AdaptiveSoftmax(
            clusters,
            output_width,
            divisor=divisor,
            tied_to=self.embedding if tied else None,
            tied_projections=[tied] * len(clusters),
        )
        for table in (*self.embedding.tables, *self.softmax.tables):
            nn.init.uniform_(table, -initial_range, initial_range)

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, embedding width)."""
        return self._dropped(self.embedding(tokens), self.input_dropout)

    def read(self, hidden: Tensor) -> Tensor:
        """(B, T, width) -> its last channels (B, T, output width)."""
        return self._dropped(self.last_channels(hidden), self.output_dropout)

    def last_channels(self, hidden: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, output width), without dropout."""
        return hidden[..., -self.output_width :]

    def _dropped(self, features: Tensor, probability: float) -> Tensor:
        if not self.training or probability == 0:
            return features
        shape = (features.shape[0], 1, features.shape[2])
        return features * sequence_mask(features, shape, probability)


class TrellisBase(nn.Module):
    """Embedding, softmax and cell; a subclass says how often the cell is applied."""

    def __init__(
        self,
        vocabulary: int,
        size: Size,
        *,
        output_width: int | None,
        weight_norm: bool,
        weight_drop: float = 0.0,
        injection_bias: bool = True,
        input_dropout: float,
        hidden_dropout: float,
        output_dropout: float,
        tie_weights: bool,
    ) -> None:
        """Build the parts; an output_width of None is the embedding's width."""
        super().__init__()
        self.size = size
        self.hidden_dropout = hidden_dropout
        width = output_width or size.embedding_width
        self.ends = TokenEnds(
            vocabulary, embedding_width=size.embedding_width, output_width=width,
            divisor=size.divisor, cutoffs=size.cutoffs, input_dropout=input_dropout,
            output_dropout=output_dropout, tied=tie_weights, initial_range=size.initial_range,
        )  # fmt: skip
        self.cell = TrellisCell(
            size.embedding_width, size.hidden_width + width, weight_norm=weight_norm,
            weight_drop=weight_drop, injection_bias=injection_bias,
        )  # fmt: skip

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The negative log-likelihood (B, T) in nats of `targets`, 0 where they are -100."""
        return self.ends.softmax.token_losses(hidden, targets)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """The log-probabilities (..., vocabulary) of what follows."""
        return self.ends.softmax.log_probabilities(hidden)

    def _hidden(self, z: Tensor) -> Tensor:
        """The half h of a state z = [h | c]."""
        return z[..., : self.cell.width]

    def _masks(self, like: Tensor) -> tuple[Tensor, ...]:
        if not self.training or self.hidden_dropout == 0:
            return ()
        return (sequence_mask(like, (len(like), 1, self.cell.width), self.hidden_dropout),)
