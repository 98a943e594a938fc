"""A random share of the budget, the same on all ranks and after a resume."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equipoise.equilibrium.draws import Draws


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
        self.draws = Draws(seed)

    def draw(self) -> int:
        """The next number; drawn on the CPU, where no device has to be waited for."""
        return int(torch.randint(self.width + 1, (), generator=self.draws.generator()))

    def get_extra_state(self) -> Tensor:
        """The count of draws."""
        return torch.tensor(self.draws.count)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on after so many draws."""
        self.draws.count = int(state)
