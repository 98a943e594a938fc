"""The kernel transformer: a language model, or with an encoder a translator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from equipoise.models.kernel_transformer.layer import Layer, Norm, Stack
from equipoise.models.kernel_transformer.sizes import SIZES, SizeName
from equipoise.models.sequence import SequenceOutput, check_tokens, latest_steps, memory_or_nothing
from equipoise.models.sizes import adapted_size, size_for_vocabulary
from equipoise.nn import (
    AdaptiveEmbedding,
    AdaptiveSoftmax,
    AttentionForm,
    KernelAttention,
    SetFilter,
    SinusoidalPositions,
    VocabularyClusters,
)

PLAIN = AttentionForm()


class KernelTransformer(nn.Module):
    """Tokens (B, T) -> hidden states (B, T, width), through layers whose attention is `attention`.

    Without encoder layers it continues text: a segment sees the inputs of each layer at up to
    `memory_length` earlier steps, an attribute that may be changed at any time. With them it
    translates: `encode` a source, then `decode` the target written so far; its memory keeps every
    earlier step. All tokens share one embedding, to which the softmax is tied.

    Source: 1908.11775; the memory is that of Transformer-XL (arXiv 1901.02860).
    """

    auxiliary_weight = 0.0
    head_parts = ("softmax",)
    vocabulary_parts = ("embedding", "softmax")

    def __init__(
        self,
        *,
        vocabulary: int,
        memory_length: int = 0,
        encoder_layers: int | None = 0,
        size: SizeName = "auto",
        width: int | None = None,
        heads: int | None = None,
        inner_width: int | None = None,
        layers: int | None = None,
        cutoffs: Sequence[int] | None = None,
        attention: AttentionForm = PLAIN,
        norm: Norm = "post",
        window: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        """Build the network of `size`; every field of `Size` that is given replaces the size's.

        encoder_layers: 0 is a language model, None as many as the size has. window: how many steps
        the decoder's self-attention looks back, including the current one. The attention to the
        encoder has the same kernel, without positions. Raises ValueError if the numbers do not fit
        each other.
        """
        super().__init__()
        self.size = adapted_size(
            size_for_vocabulary(size, vocabulary, SIZES),
            width=width, heads=heads, inner_width=inner_width, layers=layers,
            encoder_layers=encoder_layers, cutoffs=cutoffs,
        )  # fmt: skip
        if memory_length < 0 or (window is not None and window < 1):
            raise ValueError("memory_length must be at least 0 and window at least 1")
        self.memory_length = memory_length
        self.window = window
        width = self.size.width
        self.positions = SinusoidalPositions(width)
        clusters = VocabularyClusters(vocabulary, self.size.cutoffs)
        self.embedding = AdaptiveEmbedding(clusters, width, std=width**-0.5)
        self.softmax = AdaptiveSoftmax(clusters, width, tied_to=self.embedding, std=width**-0.5)
        self.dropout = nn.Dropout(dropout)
        encoding, deep = self.size.encoder_layers, self.size.layers
        self.encoder = self._stack(encoding, attention, None, norm) if encoding else None
        across = replace(attention, positions="none", value_positions=False) if encoding else None
        self.decoder = self._stack(deep, attention, across, norm)
        self.apply(_draw)

    def _stack(
        self, layers: int, form: AttentionForm, cross: AttentionForm | None, norm: Norm
    ) -> Stack:
        size, dropout = self.size, self.dropout.p
        made = [
            Layer(form, size.width, size.heads, size.inner_width,
                  cross=cross, norm=norm, dropout=dropout)
            for _ in range(layers)
        ]  # fmt: skip
        return Stack(made, size.width, norm)

    def forward(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None) -> SequenceOutput:
        """The hidden states of a segment (B, T) of text, and the memory for the next one.

        memory: the inputs (B, M, width) of each layer at the steps before; None if there are none.
        Raises ValueError if the network has an encoder.
        """
        if self.encoder is not None:
            raise ValueError("a network with encoder layers continues no text: set them to 0")
        output = self._decoded(tokens, memory)
        kept = tuple(latest_steps(steps, self.memory_length) for steps in output.memory)
        return output._replace(memory=kept)

    def encode(self, source: Tensor, present: Tensor) -> Tensor:
        """Sources (B, S), their padding False in `present` -> (B, S, width).

        Raises ValueError if the network has no encoder.
        """
        if self.encoder is None:
            raise ValueError("a network without encoder layers translates nothing")
        features = self._embedded(source)
        nothing = [features[:, :0]] * len(self.encoder.layers)
        view = _view(features, features, present=present)
        encoded: Tensor = self.encoder(features, nothing, view, self.positions.at)[0]
        return encoded

    def decode(
        self,
        tokens: Tensor,
        encoded: Tensor,
        present: Tensor,
        memory: tuple[Tensor, ...] | None = None,
    ) -> SequenceOutput:
        """The hidden states of target tokens (B, T) that follow those in the memory.

        The memory holds every step of the target before them.
        """
        return self._decoded(tokens, memory, encoded, present)

    def _decoded(
        self,
        tokens: Tensor,
        memory: tuple[Tensor, ...] | None,
        encoded: Tensor | None = None,
        present: Tensor | None = None,
    ) -> SequenceOutput:
        features = self._embedded(tokens)
        widths = (self.size.width,) * len(self.decoder.layers)
        earlier = memory_or_nothing(memory, features, widths)
        view = _view(features, features, earlier[0].shape[1], causal=True, window=self.window)
        cross_view = None if encoded is None else _view(features, encoded, present=present)
        hidden, inputs = self.decoder(
            features, earlier, view, self.positions.at, encoded, cross_view
        )
        return SequenceOutput(hidden, tuple(inputs))

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The negative log-likelihood (B, T) in nats of `targets`, 0 where they are -100."""
        return self.softmax.token_losses(hidden, targets)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """The log-probabilities (..., vocabulary) of what follows."""
        return self.softmax.log_probabilities(hidden)

    @torch.no_grad()
    def attention_maps(
        self, tokens: Tensor, source: Tensor | None = None, present: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The weights (B, heads, queries, keys) of each attention, by name, without a memory.

        Names are "encoder 1", "decoder 1" and "cross 1", counted from the input.
        """
        maps: dict[str, Tensor] = {}
        encoded = cross_view = None
        features = self._embedded(tokens)
        if self.encoder is not None:
            assert source is not None
            assert present is not None
            embedded = self._embedded(source)
            view = _view(embedded, embedded, present=present)
            maps |= self.encoder.maps("encoder", embedded, view, self.positions.at)
            encoded = self.encode(source, present)
            cross_view = _view(features, encoded, present=present)
        view = _view(features, features, causal=True, window=self.window)
        return maps | self.decoder.maps(
            "decoder", features, view, self.positions.at, encoded, cross_view
        )

    @torch.no_grad()
    def kernel_profiles(self, distances: int) -> dict[str, Tensor]:
        """The log of each self-attention's positional factor by distance, (heads, distances).

        Only for factors that depend on the distance alone, not on the content.
        """
        profiles = {
            name: attention.smoother.positional.profile(self.positions.at, distances)
            for name, attention in self._attentions()
        }
        return {name: profile for name, profile in profiles.items() if profile is not None}

    @torch.no_grad()
    def kernel_widths(self) -> dict[str, Tensor]:
        """The learned width of each attention's kernel, (heads,); empty if it is not learned."""
        widths = {n: getattr(a.smoother.kernel, "log_width", None) for n, a in self._attentions()}
        return {name: width.exp() for name, width in widths.items() if width is not None}

    def _attentions(self) -> Iterator[tuple[str, KernelAttention]]:
        """Every attention with its name, as in `attention_maps`."""
        for name, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            for number, layer in enumerate(stack.layers if stack else (), start=1):
                assert isinstance(layer, Layer)
                yield f"{name} {number}", layer.attention.smoothing
                if layer.cross is not None:
                    yield f"cross {number}", layer.cross.smoothing

    def _embedded(self, tokens: Tensor) -> Tensor:
        check_tokens(tokens)
        embedded: Tensor = self.dropout(self.embedding(tokens))
        return embedded


def _view(
    queries: Tensor,
    keys: Tensor,
    memory: int = 0,
    *,
    causal: bool = False,
    window: int | None = None,
    present: Tensor | None = None,
) -> SetFilter:
    """What features (B, Q, width) see of `memory` steps and features (B, K, width)."""
    reach = memory + keys.shape[1]
    return SetFilter(queries.shape[1], reach, causal, window, present, queries.device)


def _draw(module: nn.Module) -> None:
    """Initialise every linear map as in the published transformer: Glorot, with a bias of 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
