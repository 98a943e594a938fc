"""Where a solve starts, so that the result does not come to depend on it."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.equilibrium.state import State, parts


def mixed_start(
    like: State, noise_fraction: float = 0.5, generator: torch.Generator | None = None
) -> State:
    """A start state of the shape of `like`: zero, and standard normal for some of the samples.

    Each sample is noise with probability noise_fraction: 0 starts all at zero, 1 all at random. A
    model trained so becomes path independent: more evaluations at test time then help. generator:
    on the CPU, where the noise is drawn, so that it is the same on every device.
    Source: Anil et al. 2022 (arXiv 2211.09961), section 4.
    """
    if not 0 <= noise_fraction <= 1:
        raise ValueError(f"noise_fraction must lie in [0, 1], got {noise_fraction}")
    tensors = parts(like)
    noisy = torch.rand(tensors[0].shape[0], generator=generator) < noise_fraction
    started = tuple(_started(part, noisy, generator) for part in tensors)
    return started if isinstance(like, tuple) else started[0]


def _started(part: Tensor, noisy: Tensor, generator: torch.Generator | None) -> Tensor:
    noise = torch.randn(part.shape, generator=generator)
    rows = noisy.view(-1, *(1 for _ in part.shape[1:]))
    return torch.where(rows, noise, 0.0).to(device=part.device, dtype=part.dtype)
