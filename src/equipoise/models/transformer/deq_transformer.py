"""The equilibrium transformer for sequences of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from equipoise.equilibrium.state import Function, constant
from equipoise.models.sequence import (
    SequenceOutput,
    check_tokens,
    latest_steps,
    memory_or_nothing,
    promoted,
)
from equipoise.models.sizes import adapted_size, size_for_vocabulary
from equipoise.models.transformer.cell import Norm, TransformerCell
from equipoise.models.transformer.injected_attention import PUBLISHED, injected_parts
from equipoise.models.transformer.sizes import SIZES, SizeName
from equipoise.nn import (
    INITIAL_STD,
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    AttentionForm,
    LearnedSequenceStart,
    SinusoidalPositions,
    VocabularyClusters,
    linear,
    sequence_mask,
    weights_computed_once,
)

TiedProjections = Literal["none", "tails", "all"]


class Segment(NamedTuple):
    """The fixed-point problem of one segment: z = f(z, *inputs), from z0 (B, T, width).

    states (B, M, width) and injections (B, M + T, 3 width): the memory's states, and the injections
    of memory and segment (2 width where queries and keys are one).
    """

    f: Function
    z0: Tensor
    inputs: tuple[Tensor, ...]
    states: Tensor
    injections: Tensor


class DEQTransformer(nn.Module):
    """Tokens (B, T) -> hidden states (B, T, width), the equilibrium of one transformer layer.

    z* = f(z*, injection of the embedded tokens) is found and differentiated by `equilibrium`, from
    z = 0 or from the prediction of an `initializer`. A segment attends to the states and injections
    of up to `memory_length` earlier steps, an attribute that may be changed at any time. Embedding
    and softmax are adaptive and tied.

    Source: 1909.01377, section 4; f, sizes and ties follow the code published with 2106.14342.
    """

    auxiliary_weight = 0.0
    head_parts = ("softmax",)
    vocabulary_parts = ("embedding", "softmax")

    def __init__(
        self,
        equilibrium: nn.Module,
        *,
        vocabulary: int,
        memory_length: int = 0,
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
        initializer: int | None = None,
    ) -> None:
        """Build the network of `size`; every field of `Size` that is given replaces the size's.

        If `width` alone is given, the embedding is as wide. `attention`: any but the published one
        makes f smooth with that kernel. `window`: how many steps attention looks back, including
        the current one; None is no limit. `dropout`: variational dropout of embeddings, positions,
        the layer and its output; `attention_dropout`: of attention weights. `tie_projections`:
        which clusters' projections embedding and softmax share: none, those after the first, all,
        or a list of one entry per cluster. `initial_std`: of the normal from which embedding,
        softmax and injection are drawn; None is the published 0.01 at the published width, and at
        others the value that gives features of the same size. `initializer`: width of a network
        that learns to predict z* as the start; None: no such network. Raises ValueError if the
        numbers do not fit each other.
        """
        super().__init__()
        self.size = adapted_size(
            size_for_vocabulary(size, vocabulary, SIZES),
            width=width, heads=heads, inner_width=inner_width,
            embedding_width=embedding_width or width, divisor=divisor, cutoffs=cutoffs,
        )  # fmt: skip
        if initial_std is not None and initial_std <= 0:
            raise ValueError(f"initial_std must be above 0, got {initial_std}")
        if memory_length < 0 or (window is not None and window < 1):
            raise ValueError("memory_length must be at least 0 and window at least 1")
        self.memory_length = memory_length
        self.window = window
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.positions = SinusoidalPositions(self.size.width)
        std = _initial_std(self.size.width) if initial_std is None else initial_std
        self._build_vocabulary(vocabulary, tie_weights, tie_projections, std)
        self.injected = injected_parts(attention) * self.size.width
        self.injection = linear(self.size.width, self.injected, std=std)
        self.cell = TransformerCell(
            self.size.width, self.size.heads, self.size.inner_width,
            norm=norm, weight_norm=weight_norm, attention=attention,
        )  # fmt: skip
        self.equilibrium = equilibrium
        self.initializer: LearnedSequenceStart | None = None
        if initializer is not None:  # last, so that the other weights are drawn as without it
            self.initializer = LearnedSequenceStart(self.injected, self.size.width, initializer)

    def _build_vocabulary(
        self,
        vocabulary: int,
        tie_weights: bool,
        tie_projections: TiedProjections | Sequence[bool],
        std: float,
    ) -> None:
        clusters = VocabularyClusters(vocabulary, self.size.cutoffs)
        embedding_width, divisor = self.size.embedding_width, self.size.divisor
        self.embedding = AdaptiveEmbedding(
            clusters, self.size.width, embedding_width=embedding_width, divisor=divisor, std=std
        )
        self.softmax = AdaptiveSoftmax(
            clusters,
            self.size.width,
            embedding_width=embedding_width,
            divisor=divisor,
            tied_to=self.embedding,
            tied_tables=tie_weights,
            tied_projections=_tied(tie_projections, len(clusters)),
            std=std,
        )

    def forward(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None) -> SequenceOutput:
        """The hidden states of a segment (B, T), and the memory for the next one.

        memory: states (B, M, width) and injections (B, M, 3 width) of the steps before; None if
        there are none. Raises ValueError if the tokens are not an integer matrix.
        """
        segment = self.segment(tokens, memory)
        z = self._solved(segment)
        hidden = self._dropped(self.readout(z), (z.shape[0], 1, z.shape[2]))
        return SequenceOutput(hidden, self.next_memory(segment, z))

    def _solved(self, segment: Segment) -> Tensor:
        """The equilibrium of a segment."""
        if self.initializer is None:
            z: Tensor = self.equilibrium(segment.f, segment.z0, *segment.inputs)
            return z
        predicted = self.initializer(segment.inputs[0], segment.z0)
        z = self.equilibrium(segment.f, constant(predicted), *segment.inputs)
        self.initializer.learn(predicted, z)
        return z

    def segment(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None) -> Segment:
        """The fixed-point problem of a segment; draws the dropout masks."""
        check_tokens(tokens)
        embedded = self.embedding(tokens)
        batch, length, width = embedded.shape
        embedded = self._dropped(embedded, (batch, 1, width))
        injection = self.injection(embedded)
        states, earlier = memory_or_nothing(memory, embedded, (width, self.injected))
        reach = states.shape[1] + length
        positions = self._dropped(self.positions(reach), (1, width))
        scene = self.cell.attention.scene(positions, length, self.window)
        key, value = self.cell.remember(states, earlier)
        z0 = embedded.new_zeros(embedded.shape, dtype=promoted(embedded))
        inputs = (injection, key, value, *self._masks(z0, reach))
        f = partial(weights_computed_once(self.cell), scene)
        return Segment(f, z0, inputs, states, _joined(earlier, injection))

    def next_memory(self, segment: Segment, z: Tensor) -> tuple[Tensor, ...]:
        """The latest states and injections, of no more than `memory_length` steps."""
        steps = self.memory_length
        states = latest_steps(_joined(segment.states, z), steps)
        return states, latest_steps(segment.injections, steps)

    def readout(self, z: Tensor) -> Tensor:
        """The hidden states (B, T, width) of the equilibrium layer's state: the state itself."""
        return z

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The negative log-likelihood (B, T) in nats of `targets`, 0 where they are -100."""
        return self.softmax.token_losses(hidden, targets)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """The log-probabilities (..., vocabulary) of what follows."""
        return self.softmax.log_probabilities(hidden)

    def _masks(self, like: Tensor, reach: int) -> tuple[Tensor, ...]:
        if not self.training:
            return ()
        return self.cell.draw_masks(like, reach, self.dropout, self.attention_dropout)

    def _dropped(self, features: Tensor, shape: tuple[int, ...]) -> Tensor:
        if not self.training or self.dropout == 0:
            return features
        return features * sequence_mask(features, shape, self.dropout)


def _joined(earlier: Tensor, new: Tensor) -> Tensor:
    return torch.cat((earlier, new.detach().to(earlier.dtype)), dim=1)


def _initial_std(width: int) -> float:
    """Embeddings and injections of one size at every width: each grows with std sqrt(width)."""
    return INITIAL_STD * float((SIZES["wikitext103"].width / width) ** 0.5)


def _tied(tie: TiedProjections | Sequence[bool], clusters: int) -> list[bool]:
    if not isinstance(tie, str):
        if len(tie) != clusters:
            raise ValueError(
                f"tie_projections has {len(tie)} entries, but the vocabulary {clusters} clusters: "
                "give one for each, or none, tails or all"
            )
        return list(tie)
    first, rest = {"none": (False, False), "tails": (False, True), "all": (True, True)}[tie]
    return [first, *[rest] * (clusters - 1)]
