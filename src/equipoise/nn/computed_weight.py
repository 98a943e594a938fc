"""Weights that are computed from others, once for all the evaluations of a forward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class ComputedWeight(nn.Module, ABC):
    """A weight that is a function of this module's parameters; calling the module returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.held: Tensor | None = None

    @abstractmethod
    def compute(self) -> Tensor:
        """Return the weight as the parameters are now."""

    def forward(self) -> Tensor:
        """Return the weight: the held one inside an evaluation of `weights_computed_once`."""
        return self.compute() if self.held is None else self.held


MakeWeight = Callable[[Tensor], ComputedWeight]


class ComputedConv2d(nn.Module):
    """A convolution with a computed weight, made from a plain one."""

    def __init__(self, convolution: nn.Conv2d, make_weight: MakeWeight) -> None:
        """Take over `convolution`; raises ValueError when it has a bias or padding by name."""
        super().__init__()
        if convolution.bias is not None or isinstance(convolution.padding, str):
            raise ValueError("A normalised convolution needs numbers for padding and no bias.")
        self.weight = make_weight(convolution.weight)
        self.stride = convolution.stride
        self.padding = convolution.padding
        self.dilation = convolution.dilation
        self.groups = convolution.groups

    def forward(self, features: Tensor) -> Tensor:
        """Convolve (B, in, H, W)."""
        return functional.conv2d(
            features, self.weight(), None, self.stride, self.padding, self.dilation, self.groups
        )


class ComputedLinear(nn.Module):
    """A linear map with a computed weight, made from a plain one; the bias stays as it is."""

    def __init__(self, linear: nn.Linear, make_weight: MakeWeight) -> None:
        super().__init__()
        self.weight = make_weight(linear.weight)
        self.bias = linear.bias

    def forward(self, features: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return functional.linear(features, self.weight(), self.bias)


def weights_computed_once(module: nn.Module) -> Callable[..., Any]:
    """Return `module` as a function that uses its computed weights as they are now.

    The weights are computed here, in the caller's gradient mode, and carry its graph; every call
    reads the same tensors, under `no_grad` or not, in the forward or again in the backward (as
    checkpointing does, which needs the same graph twice). Between calls the module holds none of
    them, so it can be copied, saved and loaded at any time. Nested use is fine.
    """
    held = [(weight, weight()) for weight in module.modules() if isinstance(weight, ComputedWeight)]

    def evaluate(*arguments: Any) -> Any:
        before = [weight.held for weight, _ in held]
        for weight, tensor in held:
            weight.held = tensor
        try:
            return module(*arguments)
        finally:
            for (weight, _), earlier in zip(held, before, strict=True):
                weight.held = earlier

    return evaluate
