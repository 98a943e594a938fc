"""Small networks that predict an equilibrium, so that the solve starts near it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.equilibrium.regularizers import Pending
from equipoise.equilibrium.state import State, parts

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class LearnedStart(nn.Module, ABC):
    """Predicts a state from the injection, and learns by the distance to the equilibrium found.

    Its loss reaches no other weights: the injection and the equilibrium count as constants. Before
    training, the prediction is 0, which is also the start without it. Source: Bai, Koltun and
    Kolter 2022, Neural Deep Equilibrium Solvers (ICLR), section 4.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pending = Pending()

    @abstractmethod
    def predict(self, injection: Tensor) -> State:
        """The state that belongs to an injection."""

    def forward(self, injection: Tensor, like: State) -> State:
        """The predicted state, with a graph in training, in the dtypes of `like`."""
        predicted = self.predict(injection.detach())
        cast = tuple(a.to(b.dtype) for a, b in zip(parts(predicted), parts(like), strict=True))
        return cast[0] if isinstance(like, Tensor) else cast

    def learn(self, predicted: State, equilibrium: State) -> None:
        """Record the loss of a forward in training."""
        self._pending.drop_stale()
        if self.training and torch.is_grad_enabled():
            self._pending.add(start_loss(predicted, equilibrium), equilibrium)

    def pop_loss(self) -> Tensor | None:
        """The sum of the losses since the last call; None if there is none."""
        return self._pending.pop_penalty()


def start_loss(predicted: State, equilibrium: State) -> Tensor:
    """|z0 - z*|^2 / |z*|^2 over all parts of a sample's state, the mean over samples."""
    pairs = list(zip(parts(predicted), parts(equilibrium), strict=True))
    gaps = [_squares(a.float() - b.detach().float()) for a, b in pairs]
    sizes = [_squares(b.detach().float()) for _, b in pairs]
    gap, size = torch.stack(gaps).sum(0), torch.stack(sizes).sum(0)
    return (gap / size.clamp(min=torch.finfo(size.dtype).eps)).mean()


def _squares(part: Tensor) -> Tensor:
    """Per sample the sum of squares: (B,)."""
    return part.reshape(len(part), -1).square().sum(dim=1)


class LearnedImageStart(LearnedStart):
    """An injection (B, C, H, W) -> a state (B, C_i, H / 2^i, W / 2^i) for every branch i.

    A 3x3 convolution to `width` channels, then for each branch the mean of its fields and a 1x1
    convolution.
    """

    def __init__(self, injected: int, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(injected, width, 3, padding=1)
        self.branches = nn.ModuleList(_from_zero(nn.Conv2d(width, count, 1)) for count in channels)

    def predict(self, injection: Tensor) -> tuple[Tensor, ...]:
        """One tensor per branch."""
        features = functional.relu(self.features(injection))
        states = []
        for number, branch in enumerate(self.branches):
            pooled = functional.avg_pool2d(features, 2**number) if number else features
            states.append(branch(pooled))
        return tuple(states)


class LearnedSequenceStart(LearnedStart):
    """An injection (B, T, injected) -> a state (B, T, width), by two layers at each position.

    hidden: the width of the layer between.
    """

    def __init__(self, injected: int, width: int, hidden: int) -> None:
        super().__init__()
        self.features = nn.Linear(injected, hidden)
        self.state = _from_zero(nn.Linear(hidden, width))

    def predict(self, injection: Tensor) -> Tensor:
        """The state of each position."""
        state: Tensor = self.state(functional.relu(self.features(injection)))
        return state


def _from_zero(layer: Layer) -> Layer:
    """The layer, whose output is zero until it is trained."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
