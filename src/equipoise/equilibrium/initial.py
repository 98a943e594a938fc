"""Where a solve starts, so that the result does not come to depend on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from equipoise.equilibrium.draws import Draws
from equipoise.equilibrium.state import State, parts

StartRule = Callable[[State], State]
"""The start state that a model gives -> the one that is solved from, of the same shape."""


def mixed_start(
    z0: State, noise_fraction: float = 0.5, generator: torch.Generator | None = None
) -> State:
    """z0, with standard normal noise in place of some of the samples.

    Each sample is noise with probability noise_fraction: 0 leaves z0 as it is, 1 starts all at
    random. A model trained so becomes path independent: more evaluations at test time then help.
    The noise is drawn on the generator's device, without one on the CPU.
    Source: Anil et al. 2022 (arXiv 2211.09961), section 4.
    """
    _check_fraction(noise_fraction)
    tensors = parts(z0)
    device = torch.device("cpu") if generator is None else generator.device
    draws = torch.rand(tensors[0].shape[0], generator=generator, device=device)
    noisy = draws < noise_fraction
    started = tuple(_started(part, noisy, generator) for part in tensors)
    return started[0] if isinstance(z0, Tensor) else started


def zero_start(z0: State) -> State:
    """Zeros of z0's shape."""
    if isinstance(z0, Tensor):
        return torch.zeros_like(z0)
    return tuple(torch.zeros_like(part) for part in z0)


class MixedStart(nn.Module):
    """`mixed_start` in training; in evaluation the start stays as it is.

    The noise follows from the seed and the count of draws alone, which is part of the state dict:
    a resumed run draws the same. It is drawn on z0's device.
    """

    def __init__(self, noise_fraction: float, seed: int = 0) -> None:
        super().__init__()
        _check_fraction(noise_fraction)
        self.noise_fraction = noise_fraction
        self.seed = seed
        self.draws = Draws(seed)

    def forward(self, z0: State) -> State:
        """The start of one solve."""
        if not self.training:
            return z0
        generator = self.draws.generator(parts(z0)[0].device)
        return mixed_start(z0, self.noise_fraction, generator)

    def get_extra_state(self) -> Tensor:
        """The count of draws."""
        return torch.tensor(self.draws.count)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on after so many draws."""
        self.draws.count = int(state)


def _check_fraction(noise_fraction: float) -> None:
    if not 0 <= noise_fraction <= 1:
        raise ValueError(f"noise_fraction must lie in [0, 1], got {noise_fraction}")


def _started(part: Tensor, noisy: Tensor, generator: torch.Generator | None) -> Tensor:
    dtype = torch.complex64 if part.is_complex() else torch.get_default_dtype()
    noise = torch.randn(part.shape, generator=generator, dtype=dtype, device=noisy.device)
    rows = noisy.view(-1, *(1 for _ in part.shape[1:])).to(part.device)
    return torch.where(rows, noise.to(device=part.device, dtype=part.dtype), part)
