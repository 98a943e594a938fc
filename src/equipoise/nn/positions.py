"""Sinusoidal positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SinusoidalPositions(nn.Module):
    """The row of distance p is [sin(p w) | cos(p w)], w_i = 10000^(-2 i / width), i < width / 2.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, in the order of Transformer-XL.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        """Raises ValueError where the width is odd."""
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"sinusoidal positions need an even width, got {width}")
        self.register_buffer("frequencies", 1 / 10000 ** (torch.arange(0.0, width, 2) / width))

    def forward(self, length: int) -> Tensor:
        """Rows (length, width) for the distances length - 1, ..., 1, 0."""
        steps = torch.arange(length - 1, -1, -1, device=self.frequencies.device)
        angles = torch.outer(steps.to(self.frequencies.dtype), self.frequencies)
        return torch.cat((angles.sin(), angles.cos()), dim=1)
