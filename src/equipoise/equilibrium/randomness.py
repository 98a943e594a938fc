"""Random numbers determined by a seed and a count, what is drawn with them, and their replay."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from equipoise.equilibrium.state import State, parts

SPREAD = 0x9E3779B97F4A7C15
"""Odd, near 2^64 over the golden ratio: successive counts become seeds that are far apart."""
REMEMBERED = 4096
"""Draws inside activation checkpoints of which the numbers are kept for the recomputation."""


class Draws:
    """A generator for each draw; a checkpoint only has to keep the count of draws.

    Activation checkpointing repeats a forward in the backward pass, where the draws must be the
    same as before, whatever was drawn since. It restores the global random state for this purpose;
    a draw inside a checkpoint takes a mark from that state, by which the repeated draw finds its
    number. Outside of checkpoints, global generators are not touched.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.count = 0
        self._numbers: OrderedDict[int, int] = OrderedDict()

    def generator(self, device: torch.device | None = None) -> torch.Generator:
        """The generator of the next draw, or of an earlier one that is being repeated."""
        generator = torch.Generator("cpu" if device is None else device)
        return generator.manual_seed((self.seed + self._number() * SPREAD) % 2**63)

    def _number(self) -> int:
        if not _inside_checkpoint():
            return self._next()
        mark = _mark()
        if mark not in self._numbers:
            # A mark that is new in a recomputation: its checkpoint keeps no random state.
            self._numbers[mark] = max(self.count - 1, 0) if recomputing() else self._next()
            if len(self._numbers) > REMEMBERED:
                self._numbers.popitem(last=False)
        return self._numbers[mark]

    def _next(self) -> int:
        self.count += 1
        return self.count - 1


def recomputing() -> bool:
    """Whether a checkpoint is repeating its forward in a backward pass."""
    return torch._C._current_graph_task_id() != -1


def _mark() -> int:
    """A number of the global generator, which a checkpoint sets back before it recomputes."""
    return int(torch.randint(2**62, (), device="cpu"))


def _inside_checkpoint() -> bool:
    """Whether torch.utils.checkpoint is among the callers: it offers no way to ask."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == checkpoint.__file__:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class CountedDraws(nn.Module):
    """A module that draws from a seed; the count of its draws is part of the state dict.

    No global generator is used, so ranks agree without communication, and a resumed run draws the
    same numbers as an uninterrupted one.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.draws = Draws(seed)

    def get_extra_state(self) -> Tensor:
        """The count of draws."""
        return torch.tensor(self.draws.count)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue after this number of draws."""
        self.draws.count = int(state)


class BudgetJitter(CountedDraws):
    """Draws by how many steps a training solve is shortened: uniform in 0..width.

    Source: Bai et al. 2021 (arXiv 2106.14342), section 4 (a random number of solver steps).
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__(seed)
        if width < 0:
            raise ValueError(f"jitter must not be negative, got {width}")
        self.width = width

    def draw(self) -> int:
        """The next number; drawn on the CPU, so that nothing waits for the device."""
        return int(torch.randint(self.width + 1, (), generator=self.draws.generator()))


StartRule = Callable[[State], State]
"""The start state that a model gives -> the one that is solved from, of the same shape."""


def mixed_start(
    z0: State, noise_fraction: float = 0.5, generator: torch.Generator | None = None
) -> State:
    """z0, with standard normal noise instead of some of the samples.

    Each sample is noise with probability noise_fraction: 0 leaves z0 as it is, 1 starts all at
    random. A model trained in this way becomes path independent, so that more evaluations help at
    test time. The noise is drawn on the generator's device, without one on the CPU. Source: Anil et
    al. 2022 (arXiv 2211.09961), section 4.
    """
    _check_fraction(noise_fraction)
    tensors = parts(z0)
    device = torch.device("cpu") if generator is None else generator.device
    noisy = torch.rand(tensors[0].shape[0], generator=generator, device=device) < noise_fraction
    started = tuple(_started(part, noisy, generator) for part in tensors)
    return started[0] if isinstance(z0, Tensor) else started


def zero_start(z0: State) -> State:
    """Zeros of z0's shape."""
    if isinstance(z0, Tensor):
        return torch.zeros_like(z0)
    return tuple(torch.zeros_like(part) for part in z0)


class MixedStart(CountedDraws):
    """`mixed_start` in training, drawn on z0's device; in evaluation the start stays as it is."""

    def __init__(self, noise_fraction: float, seed: int = 0) -> None:
        super().__init__(seed)
        _check_fraction(noise_fraction)
        self.noise_fraction = noise_fraction

    def forward(self, z0: State) -> State:
        """The start of one solve."""
        if not self.training:
            return z0
        generator = self.draws.generator(parts(z0)[0].device)
        return mixed_start(z0, self.noise_fraction, generator)


def _check_fraction(noise_fraction: float) -> None:
    if not 0 <= noise_fraction <= 1:
        raise ValueError(f"noise_fraction must lie in [0, 1], got {noise_fraction}")


def _started(part: Tensor, noisy: Tensor, generator: torch.Generator | None) -> Tensor:
    dtype = torch.complex64 if part.is_complex() else torch.get_default_dtype()
    noise = torch.randn(part.shape, generator=generator, dtype=dtype, device=noisy.device)
    rows = noisy.view(-1, *(1 for _ in part.shape[1:])).to(part.device)
    return torch.where(rows, noise.to(device=part.device, dtype=part.dtype), part)


@dataclass(frozen=True)
class RandomState:
    """Random state and autocast state under which f was evaluated.

    Kept so that dropout masks and precision repeat; the caller's own random state stays as it is.
    """

    device: torch.device
    random: Tensor
    device_random: Tensor | None
    autocast: bool
    autocast_dtype: torch.dtype

    @classmethod
    def capture(cls, device: torch.device) -> RandomState:
        """The present state, for an f that runs on `device`."""
        module = _random_module(device)
        return cls(
            device=device,
            random=torch.get_rng_state(),
            device_random=None if module is None else module.get_rng_state(device),
            autocast=torch.is_autocast_enabled(device.type),
            autocast_dtype=torch.get_autocast_dtype(device.type),
        )

    @contextmanager
    def restored(self) -> Iterator[None]:
        """The same state inside the block."""
        module = _random_module(self.device)
        devices = [] if module is None else [self.device]
        cast = torch.autocast(
            self.device.type, dtype=self.autocast_dtype, enabled=self.autocast, cache_enabled=False
        )
        with torch.random.fork_rng(devices, device_type=self.device.type), cast:
            torch.set_rng_state(self.random)
            if module is not None:
                module.set_rng_state(self.device_random, self.device)
            yield


def _random_module(device: torch.device) -> Any:
    """torch.cuda and its like for a device with a random state of its own, None for the CPU."""
    return None if device.type == "cpu" else torch.get_device_module(device)
