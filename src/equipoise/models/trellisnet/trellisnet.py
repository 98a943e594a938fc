"""The explicit trellis network, a stack of levels that share their weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

from torch import Tensor

from equipoise.models.sequence import SequenceOutput, check_tokens, promoted
from equipoise.models.sizes import adapted_size, size_for_vocabulary
from equipoise.models.trellisnet.base import TrellisBase
from equipoise.models.trellisnet.cell import input_taps
from equipoise.models.trellisnet.sizes import SIZES, SizeName
from equipoise.nn import weights_computed_once


class TrellisNet(TrellisBase):
    """Tokens (B, T) -> hidden states (B, T, output width) by `levels` applications of one level.

    The memory is [h | c] (B, 1, 2 width) at the last step of the last level; every level starts
    from it. Every `auxiliary_every`-th level gives a further output, with its own loss of weight
    `auxiliary_weight`.

    Source: Bai et al. 2019 (arXiv 1810.06682), and its published code.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        size: SizeName = "auto",
        hidden_width: int | None = None,
        embedding_width: int | None = None,
        output_width: int | None = None,
        levels: int | None = None,
        divisor: int | None = None,
        cutoffs: Sequence[int] | None = None,
        initial_range: float | None = None,
        dilations: Sequence[int] = (1,),
        auxiliary_every: int | None = None,
        auxiliary_weight: float = 0.0,
        weight_norm: bool = True,
        weight_drop: float = 0.0,
        input_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        output_dropout: float = 0.0,
        tie_weights: bool = True,
    ) -> None:
        """Build the network of `size`; every field of `Size` that is given replaces the size's.

        output_width: None is the embedding's width. dilations: of the levels, repeated cyclically.
        weight_drop: of the weights on the step before. The dropouts are variational: of the
        embedded tokens, of the state inside a level, of the softmax's input. Raises ValueError if
        the numbers do not fit each other.
        """
        shape = adapted_size(
            size_for_vocabulary(size, vocabulary, SIZES),
            hidden_width=hidden_width, embedding_width=embedding_width, levels=levels,
            divisor=divisor, cutoffs=cutoffs, initial_range=initial_range,
        )  # fmt: skip
        level_dilations = list(islice(cycle(dilations), shape.levels))
        _check(level_dilations, auxiliary_every)
        super().__init__(
            vocabulary, shape, output_width=output_width, weight_norm=weight_norm,
            weight_drop=weight_drop, injection_bias=False, input_dropout=input_dropout,
            hidden_dropout=hidden_dropout, output_dropout=output_dropout, tie_weights=tie_weights,
        )  # fmt: skip
        self.dilations = level_dilations
        self.auxiliary_every = auxiliary_every
        self.auxiliary_weight = auxiliary_weight

    def forward(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None) -> SequenceOutput:
        """The hidden states of a segment (B, T), the next memory, and auxiliary states.

        memory: the state (B, 1, 2 width) of the step before; None if there is none. Raises
        ValueError if the tokens are not an integer matrix.
        """
        check_tokens(tokens)
        states = self._levels(self.ends.embed(tokens), memory)
        hidden = self.ends.read(self._hidden(states[-1]))
        auxiliary = tuple(self.ends.last_channels(self._hidden(z)) for z in states[:-1])
        return SequenceOutput(hidden, (states[-1][:, -1:].detach(),), auxiliary)

    def _levels(self, features: Tensor, memory: tuple[Tensor, ...] | None) -> list[Tensor]:
        """The states (B, T, 2 width) of the levels with an auxiliary output, and of the last."""
        shape = (*features.shape[:2], 2 * self.cell.width)
        z = features.new_zeros(shape, dtype=promoted(features))
        earlier = z[:, :1] if memory is None else memory[0]
        # Each weight is computed once, and so has one weight_drop mask, for all levels.
        inward, level = weights_computed_once(self.cell.inward), weights_computed_once(self.cell)
        injections = {d: inward(input_taps(features, d)) for d in sorted(set(self.dilations))}
        masks = self._masks(z)
        auxiliary = []
        for number, dilation in enumerate(self.dilations, start=1):
            z = level(dilation, z, injections[dilation], earlier, *masks)
            if self.auxiliary_every and number % self.auxiliary_every == 0:
                auxiliary.append(z)
        return [*auxiliary, z]


def _check(dilations: Sequence[int], auxiliary_every: int | None) -> None:
    if not dilations or min(dilations) < 1:
        raise ValueError("a trellis network needs at least one level, and dilations of at least 1")
    if auxiliary_every is not None and auxiliary_every < 1:
        raise ValueError(f"auxiliary_every must be null or at least 1, got {auxiliary_every}")
