"""The explicit transformer whose layers share their weights, a baseline of the equilibrium."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from equipoise.equilibrium.state import Function, State
from equipoise.models.sequence import SequenceOutput
from equipoise.models.transformer.cell import Norm
from equipoise.models.transformer.deq_transformer import DEQTransformer, TiedProjections
from equipoise.models.transformer.injected_attention import PUBLISHED
from equipoise.models.transformer.sizes import SizeName
from equipoise.nn import AttentionForm


class Repetition(nn.Module):
    """z <- f(z, *inputs), `layers` times from z0, with ordinary backpropagation through all of it.

    The explicit counterpart of an equilibrium layer, with the same call. checkpointed: keep one
    state per layer and recompute the rest in the backward pass, instead of keeping its graph.
    """

    def __init__(self, layers: int, checkpointed: bool = False) -> None:
        """Raises ValueError unless there is a layer."""
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.layers = layers
        self.checkpointed = checkpointed

    def forward(self, f: Function, z0: State, *inputs: Any) -> State:
        """The state of the last layer."""
        state = z0
        for _ in range(self.layers):
            if self.checkpointed and torch.is_grad_enabled():
                state = checkpoint(f, state, *inputs, use_reentrant=False)
            else:
                state = f(state, *inputs)
        return state


class Transformer(nn.Module):
    """Tokens (B, T) -> hidden states (B, T, width) by `layers` applications of one layer.

    It is the equilibrium transformer, parameter by parameter, with plain iteration instead of a
    solve; every layer attends to the same memory, the last layer's states of earlier segments.

    Source: the weight-tied networks that 1909.01377, section 3, takes to the limit.
    """

    auxiliary_weight = 0.0

    def __init__(
        self,
        *,
        vocabulary: int,
        memory_length: int = 0,
        layers: int = 12,
        checkpointed: bool = False,
        size: SizeName = "auto",
        width: int | None = None,
        heads: int | None = None,
        inner_width: int | None = None,
        embedding_width: int | None = None,
        divisor: int | None = None,
        cutoffs: Sequence[int] | None = None,
        attention: AttentionForm = PUBLISHED,
        norm: Norm = "post",
        weight_norm: bool = True,
        window: int | None = 1000,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        tie_weights: bool = True,
        tie_projections: TiedProjections | Sequence[bool] = "tails",
        initial_std: float | None = None,
    ) -> None:
        """Build `layers` layers of one set of weights; the rest is as in `DEQTransformer`.

        `checkpointed` keeps one state per layer and recomputes the rest in the backward pass.
        Raises ValueError if the numbers do not fit each other.
        """
        super().__init__()
        self.network = DEQTransformer(
            Repetition(layers, checkpointed), vocabulary=vocabulary, memory_length=memory_length,
            size=size, width=width, heads=heads, inner_width=inner_width,
            embedding_width=embedding_width, divisor=divisor, cutoffs=cutoffs,
            attention=attention, norm=norm, weight_norm=weight_norm, window=window, dropout=dropout,
            attention_dropout=attention_dropout, tie_weights=tie_weights,
            tie_projections=tie_projections, initial_std=initial_std,
        )  # fmt: skip

    @property
    def memory_length(self) -> int:
        """How many earlier steps are attended to; may be changed at any time."""
        return self.network.memory_length

    @memory_length.setter
    def memory_length(self, steps: int) -> None:
        self.network.memory_length = steps

    def forward(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None) -> SequenceOutput:
        """The hidden states of a segment (B, T), and the memory for the next one."""
        output: SequenceOutput = self.network(tokens, memory)
        return output

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The negative log-likelihood (B, T) in nats of `targets`, 0 where they are -100."""
        return self.network.token_losses(hidden, targets)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """The log-probabilities (..., vocabulary) of what follows."""
        return self.network.log_probabilities(hidden)
