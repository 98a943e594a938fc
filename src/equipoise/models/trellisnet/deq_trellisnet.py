"""The equilibrium trellis network for sequences of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from equipoise.equilibrium.state import Function
from equipoise.models.sequence import SequenceOutput, check_tokens, promoted
from equipoise.models.sizes import adapted_size, size_for_vocabulary
from equipoise.models.trellisnet.base import TrellisBase
from equipoise.models.trellisnet.sizes import EQUILIBRIUM_SIZES, SizeName
from equipoise.nn import weights_computed_once


class Segment(NamedTuple):
    """The fixed-point problem of one segment: z = f(z, *inputs), from z0 (B, T, 2 width)."""

    f: Function
    z0: Tensor
    inputs: tuple[Tensor, ...]


class DEQTrellisNet(TrellisBase):
    """Tokens (B, T) -> hidden states (B, T, output width), the equilibrium of one trellis level.

    z* = f(z*, injection of the embedded tokens), z = [h | c], is found and differentiated by
    `equilibrium`, from z = 0; the hidden states are the last channels of h. The memory is z* at the
    last step.

    Source: 1909.01377, section 4.1, and its published code.
    """

    auxiliary_weight = 0.0

    def __init__(
        self,
        equilibrium: nn.Module,
        *,
        vocabulary: int,
        size: SizeName = "auto",
        hidden_width: int | None = None,
        embedding_width: int | None = None,
        output_width: int | None = None,
        divisor: int | None = None,
        cutoffs: Sequence[int] | None = None,
        initial_range: float | None = None,
        weight_norm: bool = True,
        input_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        output_dropout: float = 0.0,
        tie_weights: bool = True,
    ) -> None:
        """Build the network of `size`; every field of `Size` that is given replaces the size's.

        output_width: None is the embedding's width. The dropouts are variational: of the embedded
        tokens, of the state inside f, of the softmax's input. Raises ValueError if the numbers do
        not fit each other.
        """
        shape = adapted_size(
            size_for_vocabulary(size, vocabulary, EQUILIBRIUM_SIZES),
            hidden_width=hidden_width, embedding_width=embedding_width,
            divisor=divisor, cutoffs=cutoffs, initial_range=initial_range,
        )  # fmt: skip
        super().__init__(
            vocabulary, shape, output_width=output_width, weight_norm=weight_norm,
            input_dropout=input_dropout, hidden_dropout=hidden_dropout,
            output_dropout=output_dropout, tie_weights=tie_weights,
        )  # fmt: skip
        self.equilibrium = equilibrium

    def forward(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None) -> SequenceOutput:
        """The hidden states of a segment (B, T), and the memory for the next one.

        memory: the state (B, 1, 2 width) of the step before; None if there is none. Raises
        ValueError if the tokens are not an integer matrix.
        """
        segment = self.segment(tokens, memory)
        z: Tensor = self.equilibrium(segment.f, segment.z0, *segment.inputs)
        hidden = self.ends.read(self._hidden(z))
        return SequenceOutput(hidden, (z[:, -1:].detach(),))

    def segment(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None) -> Segment:
        """The fixed-point problem of a segment; draws the dropout masks."""
        check_tokens(tokens)
        features = self.ends.embed(tokens)
        injection = self.cell.inject(features)
        batch, length, _ = features.shape
        shape = (batch, length, 2 * self.cell.width)
        z0 = features.new_zeros(shape, dtype=promoted(features))
        earlier = z0[:, :1] if memory is None else memory[0]
        f = partial(weights_computed_once(self.cell), 1)
        return Segment(f, z0, (injection, earlier, *self._masks(z0)))

    def readout(self, z: Tensor) -> Tensor:
        """The hidden states (B, T, output width) of the equilibrium layer's state."""
        return self.ends.last_channels(self._hidden(z))
