"""Weight normalisation whose weights are computed once for all the evaluations of a forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class NormalisedWeight(nn.Module):
    """A weight split into length and direction, w = length * direction / ||direction||.

    The norm runs over all dimensions but the first, so `length` is (out, 1, ...) and `direction`
    has the weight's shape. The length starts at the norm: the weight keeps its first value.

    Source: Salimans and Kingma 2016, "Weight normalization", equation 2.
    """

    def __init__(self, weight: Tensor) -> None:
        """Split `weight` (out, ...)."""
        super().__init__()
        self.direction = nn.Parameter(weight.detach().clone())
        self.length = nn.Parameter(self._norm().detach().clone())
        self.held: Tensor | None = None

    def forward(self) -> Tensor:
        """Return the weight: the held one inside an evaluation of `weights_computed_once`."""
        if self.held is not None:
            return self.held
        return self.direction * (self.length / self._norm())

    def _norm(self) -> Tensor:
        dimensions = tuple(range(1, self.direction.dim()))
        return torch.linalg.vector_norm(self.direction, dim=dimensions, keepdim=True)


class NormalisedConv2d(nn.Module):
    """A convolution with a normalised weight, made from a plain one whose values it takes over."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Take over `convolution`; raises ValueError when it has a bias or padding by name."""
        super().__init__()
        if convolution.bias is not None or isinstance(convolution.padding, str):
            raise ValueError("A normalised convolution needs numbers for padding and no bias.")
        self.weight = NormalisedWeight(convolution.weight)
        self.stride = convolution.stride
        self.padding = convolution.padding
        self.dilation = convolution.dilation
        self.groups = convolution.groups

    def forward(self, features: Tensor) -> Tensor:
        """Convolve (B, in, H, W)."""
        return functional.conv2d(
            features, self.weight(), None, self.stride, self.padding, self.dilation, self.groups
        )


def weights_computed_once(module: nn.Module) -> Callable[..., Any]:
    """Return `module` as a function that uses its normalised weights as they are now.

    The weights are computed here, in the caller's gradient mode, and carry its graph; every call
    reads the same tensors, under `no_grad` or not, in the forward or again in the backward (as
    checkpointing does, which needs the same graph twice). Between calls the module holds none of
    them, so it can be copied, saved and loaded at any time. Nested use is fine.
    """
    held = [
        (weight, weight()) for weight in module.modules() if isinstance(weight, NormalisedWeight)
    ]

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
