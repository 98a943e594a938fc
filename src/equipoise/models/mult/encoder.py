"""The encoders of MulT: positions, layers, and stacks that attend to another sequence or itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mult.attention import Attention, View

INNER = 4
"""How many times wider the feed-forward network is inside."""


@dataclass(frozen=True)
class Dropout:
    """Dropout of embeddings, attention weights, inner features and each layer's additions."""

    embedding: float = 0.0
    attention: float = 0.0
    inner: float = 0.0
    residual: float = 0.0


def sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """Rows (length, width) of the positions 1 to length: [sin(p w) | cos(p w) | 0 if width is odd].

    w_k = 10000^(-k / (h - 1)), k < h = width // 2. Computed in float32 whatever the dtype of
    `like`, as published: lower precision would distort the high frequencies of late positions.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=like.device)
    frequencies = torch.exp(steps * -(math.log(10000) / max(half - 1, 1)))
    positions = torch.arange(1, length + 1, dtype=torch.float32, device=like.device)
    angles = positions[:, None] * frequencies
    rows = torch.cat((angles.sin(), angles.cos()), dim=1)
    return functional.pad(rows, (0, width - 2 * half)).to(like.dtype)


def embedded(features: Tensor) -> Tensor:
    """sqrt(width) x + PE, the features (B, T, width) with the positions of their steps.

    A step whose first feature is exactly 0 is padding and gets no position; every other step gets
    the position of its place, counting padding.
    """
    length, width = features.shape[1:]
    positions = sinusoids(length, width, features) * (features[..., :1] != 0)
    return math.sqrt(width) * features + positions


class EncoderLayer(nn.Module):
    """x <- x + A(LN(x), LN(source)), x <- x + F(LN(x)), F a network of one hidden layer of ReLUs.

    The sequence and the source share the first norm, unless their widths differ. Without a source
    the sequence attends to itself.

    Source: 1906.00295, eq. 4; code published with it.
    """

    def __init__(
        self, width: int, heads: int, dropout: Dropout, *, source_width: int | None = None
    ) -> None:
        super().__init__()
        self.attention = Attention(
            width, heads, source_width=source_width, dropout=dropout.attention
        )
        self.norm = nn.LayerNorm(width)
        self.source_norm = None
        if source_width not in (None, width):
            self.source_norm = nn.LayerNorm(source_width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.widen, self.narrow = feed_forward(width)
        self.inner_dropout = nn.Dropout(dropout.inner)
        self.residual_dropout = nn.Dropout(dropout.residual)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, seen: View) -> Tensor:
        """(B, T, width) and the source of keys and of values (B, S, source width) -> (B, T, width).

        The sources of keys and of values differ if each has its own dropout.
        """
        keys = self.of_source(key)
        values = keys if value is key else self.of_source(value)
        return self._changed(x, self.attention(self.norm(x), keys, values, seen))

    def within(self, x: Tensor, seen: View) -> Tensor:
        """(B, T, width) -> (B, T, width), attending to itself."""
        own = self.norm(x)
        return self._changed(x, self.attention(own, own, own, seen))

    def last(self, x: Tensor, seen: View) -> Tensor:
        """The last step (B, 1, width) of `within`; seen: what it sees."""
        own = self.norm(x)
        return self._changed(x[:, -1:], self.attention(own[:, -1:], own, own, seen))

    def of_source(self, source: Tensor) -> Tensor:
        """The source (B, S, source width), normalised."""
        norm = self.norm if self.source_norm is None else self.source_norm
        normalised: Tensor = norm(source)
        return normalised

    def _changed(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.residual_dropout(attended)
        inner = self.inner_dropout(functional.relu(self.widen(self.feed_forward_norm(x))))
        changed: Tensor = x + self.residual_dropout(self.narrow(inner))
        return changed


def feed_forward(width: int) -> tuple[nn.Linear, nn.Linear]:
    """The two linear maps of a feed-forward network, initialised as published."""
    widen, narrow = nn.Linear(width, INNER * width), nn.Linear(INNER * width, width)
    for part in (widen, narrow):
        nn.init.xavier_uniform_(part.weight)
        nn.init.zeros_(part.bias)
    return widen, narrow


class CrossmodalEncoder(nn.Module):
    """Layers of a target (B, T, width), all of which attend to the embedded source (B, S, ...).

    The source stays the same in every layer; keys and values have separate dropouts.

    Source: 1906.00295, section 3.2, eq. 3 to 5.
    """

    def __init__(
        self, width: int, source_width: int, heads: int, layers: int, dropout: Dropout
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, dropout, source_width=source_width) for _ in range(layers)
        )
        self.last_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout.embedding)

    def forward(self, target: Tensor, source: Tensor, seen: View) -> Tensor:
        """(B, T, width), (B, S, source width) -> (B, T, width)."""
        x, (key, value) = self.dropout(embedded(target)), self._key_and_value(source)
        for layer in self.layers:
            x = layer(x, key, value, seen)
        encoded: Tensor = self.last_norm(x)
        return encoded

    def maps(self, target: Tensor, source: Tensor, seen: View) -> list[Tensor]:
        """The weights (B, heads, T, S) of every layer."""
        x, (key, value) = self.dropout(embedded(target)), self._key_and_value(source)
        weights = []
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            weights.append(layer.attention.weights(layer.norm(x), layer.of_source(key), seen))
            x = layer(x, key, value, seen)
        return weights

    def _key_and_value(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """The embedded source for keys and values, computed once unless dropout separates them."""
        offered = embedded(source)
        if not self.training or self.dropout.p == 0:
            return offered, offered
        return self.dropout(offered), self.dropout(offered)


class Pair(NamedTuple):
    """A target (B, T, ...), the source (B, S, ...) that it attends to, and what it sees of it."""

    target: Tensor
    source: Tensor
    seen: View


class CrossmodalStacks(nn.Module):
    """A stack of layers for each pair of modalities."""

    def __init__(self, encoders: Mapping[str, CrossmodalEncoder]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)

    def forward(self, pairs: Mapping[str, Pair]) -> dict[str, Tensor]:
        """The result for each target (B, T, width), by the names of the pairs."""
        return {name: self._encoder(name)(*pair) for name, pair in pairs.items()}

    def maps(self, pairs: Mapping[str, Pair]) -> dict[str, list[Tensor]]:
        """The weights (B, heads, T, S) of every layer, by the names of the pairs."""
        return {name: self._encoder(name).maps(*pair) for name, pair in pairs.items()}

    def _encoder(self, name: str) -> CrossmodalEncoder:
        encoder = self.encoders[name]
        assert isinstance(encoder, CrossmodalEncoder)
        return encoder


class MemoryEncoder(nn.Module):
    """Layers of self-attention over a sequence (B, T, width); only the last step is returned."""

    def __init__(self, width: int, heads: int, layers: int, dropout: Dropout) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(layers))
        self.last_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout.embedding)

    def forward(self, sequence: Tensor, seen: View, seen_by_last: View) -> Tensor:
        """(B, T, width) -> the last step (B, width); the last layer computes no other.

        seen_by_last: what the last step sees, one row of `seen`.
        """
        x = self.dropout(embedded(sequence))
        *first, last = self.layers
        for layer in first:
            assert isinstance(layer, EncoderLayer)
            x = layer.within(x, seen)
        assert isinstance(last, EncoderLayer)
        encoded: Tensor = self.last_norm(last.last(x, seen_by_last)).squeeze(1)
        return encoded

    def maps(self, sequence: Tensor, seen: View) -> list[Tensor]:
        """The weights (B, heads, T, T) of every layer."""
        x = self.dropout(embedded(sequence))
        weights = []
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            own = layer.norm(x)
            weights.append(layer.attention.weights(own, own, seen))
            x = layer.within(x, seen)
        return weights
