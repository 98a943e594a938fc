"""The map f of the equilibrium transformer: one transformer layer with an injection."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.transformer.injected_attention import (
    PUBLISHED,
    InjectedKernelAttention,
    PlacedScene,
    is_published,
)
from equipoise.nn import (
    AttentionForm,
    AttentionScene,
    RelativeAttention,
    linear,
    sequence_mask,
)

Norm = Literal["post", "published_pre", "pre"]
CellScene = AttentionScene | PlacedScene


class TransformerCell(nn.Module):
    """f(z, injection, memory's key and value, *masks) -> state of z's shape (B, T, width).

    With a = attention and F = feed-forward, and LN without learned weights:

        post            o = z + a(z),      h = LN(o),  f = LN(h + F(h))
        published_pre   o = z + a(LN(z)),  h = LN(o),  f = h + F(h)
        pre             o = z + a(LN(z)),              f = o + F(LN(o))

    `published_pre` is what the published code calls pre-norm; the last row is the textbook's. The
    memory is normalised wherever z is.

    Source: 1909.01377, section 4.2; code of 2106.14342.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner_width: int,
        *,
        norm: Norm,
        weight_norm: bool,
        attention: AttentionForm = PUBLISHED,
    ) -> None:
        """Build the layer; `weight_norm` normalises all of its linear maps."""
        super().__init__()
        self.norm = norm
        self.width = width
        self.attention: RelativeAttention | InjectedKernelAttention
        if is_published(attention):
            self.attention = RelativeAttention(width, heads, weight_norm=weight_norm)
        else:
            self.attention = InjectedKernelAttention(
                attention, width, heads, weight_norm=weight_norm
            )
        self.widen = linear(width, inner_width, weight_norm=weight_norm)
        self.narrow = linear(inner_width, width, weight_norm=weight_norm)
        self.inner_width = inner_width

    def remember(self, states: Tensor, injections: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, M, width) of remembered states, once for all evaluations."""
        return self.attention.remember(self._before_attention(states), injections)

    def draw_masks(
        self, like: Tensor, reach: int, dropout: float, attention_dropout: float
    ) -> tuple[Tensor, ...]:
        """Masks for one forward on states like (B, T, width) that attend to `reach` positions.

        None without dropout; otherwise for the attention's output, the feed-forward's inner and
        outer features, and with `attention_dropout` the attention's weights.
        """
        if dropout == 0 and attention_dropout == 0:
            return ()
        batch, length = like.shape[:2]
        widths = (self.width, self.inner_width, self.width)
        masks = tuple(sequence_mask(like, (batch, 1, width), dropout) for width in widths)
        if attention_dropout == 0:
            return masks
        full = (batch, self.attention.heads, length, reach)
        return (*masks, sequence_mask(like, full, attention_dropout))

    def attend(
        self, scene: CellScene, z: Tensor, injection: Tensor, key: Tensor, value: Tensor,
        *masks: Tensor,
    ) -> Tensor:  # fmt: skip
        """z plus the attention's output, before the feed-forward's norm."""
        dropped = masks[3] if len(masks) > 3 else None
        features = self._before_attention(z)
        attended = self.attention(features, injection, key, value, scene, dropped)
        return z + (attended * masks[0] if masks else attended)

    def forward(
        self, scene: CellScene, z: Tensor, injection: Tensor, key: Tensor, value: Tensor,
        *masks: Tensor,
    ) -> Tensor:  # fmt: skip
        """One evaluation; `scene`, which all evaluations share, comes first."""
        o = self.attend(scene, z, injection, key, value, *masks)
        if self.norm == "pre":
            return o + self._feed_forward(layer_norm(o), masks)
        h = layer_norm(o)
        y = self._feed_forward(h, masks) + h
        return layer_norm(y) if self.norm == "post" else y

    def _before_attention(self, z: Tensor) -> Tensor:
        return z if self.norm == "post" else layer_norm(z)

    def _feed_forward(self, features: Tensor, masks: tuple[Tensor, ...]) -> Tensor:
        inner = functional.relu(self.widen(features))
        if not masks:
            narrowed: Tensor = self.narrow(inner)
            return narrowed
        dropped: Tensor = self.narrow(inner * masks[1]) * masks[2]
        return dropped


def layer_norm(features: Tensor) -> Tensor:
    """Normalise the last dimension, without weights."""
    return functional.layer_norm(features, features.shape[-1:])
