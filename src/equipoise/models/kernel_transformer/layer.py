"""One layer: smoothing within a sequence and over another one, and a feed-forward network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.nn import AttentionForm, KernelAttention, PositionTable, SetFilter

Norm = Literal["post", "pre"]


class Sublayer(nn.Module):
    """post: LN(x + dropout(g(x))), pre: x + dropout(g(LN(x))), for any map g of the features.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.1; pre-norm: Xiong et al. 2020 (arXiv
    2002.04745).
    """

    def __init__(self, width: int, *, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width) if norm == "pre" else nn.Identity()
        self.after = nn.LayerNorm(width) if norm == "post" else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        changed: Tensor = self.after(features + self.dropout(change(self.before(features))))
        return changed


class Attention(nn.Module):
    """A kernel smoother and the output map W_o."""

    def __init__(self, form: AttentionForm, width: int, heads: int) -> None:
        super().__init__()
        self.smoothing = KernelAttention(form, width, heads)
        self.output = nn.Linear(width, width)

    def forward(
        self, queries: Tensor, keys: Tensor, view: SetFilter, table: PositionTable | None
    ) -> Tensor:
        """(B, Q, width), (B, K, width) -> (B, Q, width)."""
        smoothed: Tensor = self.output(self.smoothing(queries, keys, view, table))
        return smoothed


class Layer(nn.Module):
    """x -> self-attention -> attention to an encoder's output, if there is one -> feed-forward."""

    def __init__(
        self,
        form: AttentionForm,
        width: int,
        heads: int,
        inner_width: int,
        *,
        cross: AttentionForm | None,
        norm: Norm,
        dropout: float,
    ) -> None:
        """`cross`: kernel of the attention to an encoder; None: there is no encoder."""
        super().__init__()
        self.attention = Attention(form, width, heads)
        self.around_attention = Sublayer(width, norm=norm, dropout=dropout)
        self.cross = None if cross is None else Attention(cross, width, heads)
        self.around_cross = Sublayer(width, norm=norm, dropout=dropout) if cross else None
        self.widen = nn.Linear(width, inner_width)
        self.narrow = nn.Linear(inner_width, width)
        self.around_feed_forward = Sublayer(width, norm=norm, dropout=dropout)

    def forward(
        self,
        features: Tensor,
        memory: Tensor,
        view: SetFilter,
        table: PositionTable,
        encoded: Tensor | None = None,
        cross_view: SetFilter | None = None,
    ) -> Tensor:
        """(B, T, width) with a memory (B, M, width) of this layer's own inputs -> (B, T, width)."""
        features = self.attend(features, memory, view, table)
        if self.cross is not None and self.around_cross is not None:
            assert encoded is not None
            assert cross_view is not None
            cross, keys, keys_view = self.cross, encoded, cross_view
            features = self.around_cross(features, lambda x: cross(x, keys, keys_view, None))
        fed: Tensor = self.around_feed_forward(features, self._feed_forward)
        return fed

    def attend(
        self, features: Tensor, memory: Tensor, view: SetFilter, table: PositionTable
    ) -> Tensor:
        """The self-attention sublayer, over memory and features."""
        remembered = self.around_attention.before(memory)
        attended: Tensor = self.around_attention(
            features,
            lambda x: self.attention(x, torch.cat((remembered, x), dim=1), view, table),
        )
        return attended

    def maps(
        self,
        features: Tensor,
        view: SetFilter,
        table: PositionTable,
        encoded: Tensor | None = None,
        cross_view: SetFilter | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The weights of the self-attention and of the attention to the encoder, (B, H, Q, K)."""
        before = self.around_attention.before(features)
        within = self.attention.smoothing.weights(before, before, view, table)
        if self.cross is None or self.around_cross is None or encoded is None:
            return within, None
        assert cross_view is not None
        attended = self.attend(features, features[:, :0], view, table)
        asking = self.around_cross.before(attended)
        return within, self.cross.smoothing.weights(asking, encoded, cross_view)

    def _feed_forward(self, features: Tensor) -> Tensor:
        fed: Tensor = self.narrow(functional.relu(self.widen(features)))
        return fed


class Stack(nn.Module):
    """A stack of layers; with pre-norm, a final norm."""

    def __init__(self, layers: Sequence[Layer], width: int, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.last = nn.LayerNorm(width) if norm == "pre" else nn.Identity()

    def forward(
        self,
        features: Tensor,
        memory: Sequence[Tensor],
        view: SetFilter,
        table: PositionTable,
        encoded: Tensor | None = None,
        cross_view: SetFilter | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The last features (B, T, width), and the inputs of each layer, its memory in front."""
        inputs = []
        for layer, earlier in zip(self.layers, memory, strict=True):
            inputs.append(torch.cat((earlier, features.detach().to(earlier.dtype)), dim=1))
            features = layer(features, earlier, view, table, encoded, cross_view)
        return self.last(features), inputs

    def maps(
        self,
        name: str,
        features: Tensor,
        view: SetFilter,
        table: PositionTable,
        encoded: Tensor | None = None,
        cross_view: SetFilter | None = None,
    ) -> dict[str, Tensor]:
        """The weights of every attention, as "<name> 1" and "cross 1", counted from the input."""
        maps = {}
        for number, layer in enumerate(self.layers, start=1):
            assert isinstance(layer, Layer)
            within, across = layer.maps(features, view, table, encoded, cross_view)
            maps[f"{name} {number}"] = within
            if across is not None:
                maps[f"cross {number}"] = across
            features = layer(features, features[:, :0], view, table, encoded, cross_view)
        return maps
