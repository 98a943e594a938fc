"""One convolution iterated to its equilibrium."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StripeNetwork(nn.Module):
    """Classify pictures (B, C, H, W) by the equilibrium z* = tanh(W * z* + U * x), averaged."""

    def __init__(
        self, equilibrium: nn.Module, *, classes: int, image_channels: int, channels: int = 8
    ) -> None:
        super().__init__()
        self.equilibrium = equilibrium
        self.inward = nn.Conv2d(image_channels, channels, 5, padding=2)
        self.recurrent = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.outward = nn.Linear(channels, classes)
        nn.init.normal_(self.recurrent.weight, std=0.3 / channels)

    def forward(self, image: Tensor) -> Tensor:
        """The logits (B, classes)."""
        x = self.inward(image)
        z = self.equilibrium(self.step, torch.zeros_like(x), x)
        logits: Tensor = self.outward(z.square().mean(dim=(2, 3)))
        return logits

    def step(self, z: Tensor, x: Tensor) -> Tensor:
        """One evaluation of f."""
        return torch.tanh(self.recurrent(z) + x)
