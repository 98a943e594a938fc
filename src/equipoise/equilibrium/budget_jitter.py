"""A random share of the budget, the same on all ranks and after a resume."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SPREAD = 0x9E3779B97F4A7C15
"""Odd, near 2^64 over the golden ratio: successive counts become seeds that are far apart."""


class BudgetJitter(nn.Module):
    """Draws how many steps a training solve gives up: uniform in 0..width.

    The numbers follow from the seed and the count of draws alone, not from a global generator, so
    ranks agree without talking to each other; the count is part of the state dict.
    Source: Bai et al. 2021 (arXiv 2106.14342), section 4 (a random number of solver steps).
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        if width < 0:
            raise ValueError(f"jitter must not be negative, got {width}")
        self.width = width
        self.seed = seed
        self.count = 0

    def draw(self) -> int:
        """The next number; drawn on the CPU, where no device has to be waited for."""
        generator = torch.Generator().manual_seed((self.seed + self.count * SPREAD) % 2**63)
        self.count += 1
        return int(torch.randint(self.width + 1, (), generator=generator))

    def get_extra_state(self) -> Tensor:
        """The count of draws."""
        return torch.tensor(self.count)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on after so many draws."""
        self.count = int(state)
