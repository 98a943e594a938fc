"""From stored pixel values to the numbers that a network takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalization:
    """Turn pixels p of 0 to `white` into (p / white - mean) / std, channel by channel.

    Takes uint8 images (B, C, H, W) and returns float32 images of the same shape.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], white: int = 255) -> None:
        self.mean = torch.tensor(mean).view(-1, 1, 1) * white
        self.std = torch.tensor(std).view(-1, 1, 1) * white

    def __call__(self, images: Tensor) -> Tensor:
        """Return the normalised images."""
        return images.float().sub_(self.mean).div_(self.std)


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CIFAR10 = Normalization(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))
