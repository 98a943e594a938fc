"""The initial state of each node: from its labels, coarse to fine, and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from equipoise.nn.computed_weight import NormalisedLinear

Form = Literal["sine", "learned"]
FORMS: tuple[Form, ...] = ("sine", "learned")
BASE = 1000.0
BOUND = 0.1
"""Bound of the uniform distribution of the initial weights; published."""


def initialise(module: nn.Module) -> None:
    """Weights of linear maps from U(-0.1, 0.1), biases 0; for `module.apply`. Published."""
    if isinstance(module, nn.Linear):
        nn.init.uniform_(module.weight, -BOUND, BOUND)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def linear(source: int, target: int, *, weight_norm: bool, bias: bool = True) -> nn.Module:
    """A linear map with the published initial weights, perhaps split into length and direction."""
    plain = nn.Linear(source, target, bias=bias)
    initialise(plain)
    return NormalisedLinear(plain) if weight_norm else plain


def sinusoids(feature: Tensor, width: int) -> Tensor:
    """(...) -> (..., width): cos(f w_k) in channels 2 k, sin(f w_k) in 2 k + 1.

    w_k = 1000^(-2 k / width). Published; frequencies are computed in float32 whatever the dtype.
    """
    steps = torch.arange(0, width, 2, dtype=torch.float32, device=feature.device)
    angles = feature.unsqueeze(-1) * (BASE ** (-steps / width)).to(feature.dtype)
    return torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(-2)[..., :width]


class NodeEmbedding(nn.Module):
    """The sum of embeddings of all label levels, combined with the node's numbers.

    `sine`: adds a linear map of each number's sinusoids. `learned`: puts a linear map of the
    numbers beside the embeddings, in `feature_width` channels of the width.
    """

    vocabulary_parts = ("levels",)

    def __init__(
        self, labels: Sequence[int], width: int, *, features: int, form: Form, feature_width: int
    ) -> None:
        """labels: how many there are on each level, excluding 0 for unknown ones and padding.

        features: how many numbers a node has. Raises ValueError if there is no such form, or if
        `feature_width` leaves no room for the embeddings.
        """
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"there is no form '{form}' of features: choose {', '.join(FORMS)}")
        if form == "learned" and not 0 < feature_width < width:
            raise ValueError(f"feature_width={feature_width} must be above 0 and below {width}")
        self.width = width
        room = width if form == "sine" else width - feature_width
        self.levels = nn.ModuleList(nn.Embedding(count + 1, room) for count in labels)
        self.sines = nn.ModuleList(
            nn.Linear(width, width) for _ in range(features if form == "sine" else 0)
        )
        self.learned = nn.Linear(features, feature_width) if form == "learned" else None
        self.apply(initialise)

    def forward(self, label: Tensor, feature: Tensor) -> Tensor:
        """Labels int64 (B, N, levels) and numbers (B, N, features) -> (B, N, width)."""
        ids = label.unbind(dim=-1)
        state: Tensor = sum(level(i) for level, i in zip(self.levels, ids, strict=True))
        if self.learned is not None:
            return torch.cat([state, self.learned(feature)], dim=-1)
        for number, linear in zip(feature.unbind(dim=-1), self.sines, strict=True):
            state = state + linear(sinusoids(number, self.width))
        return state
