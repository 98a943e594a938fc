"""Weights computed from parameters, once per forward pass: normalised and spectral."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FIRST_ITERATIONS = 15
"""Power iterations at construction, for a good first estimate of the norm."""


INITIAL_STD = 0.01
"""The default standard deviation of drawn weights."""


class ComputedWeight(nn.Module, ABC):
    """A weight that is a function of this module's parameters; calling the module returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.held: Tensor | None = None

    @abstractmethod
    def compute(self) -> Tensor:
        """The weight as the parameters are now."""

    def forward(self) -> Tensor:
        """The weight; inside `weights_computed_once`, the one computed there."""
        return self.compute() if self.held is None else self.held


MakeWeight = Callable[[Tensor], ComputedWeight]


class ComputedConv2d(nn.Module):
    """A convolution with a computed weight, made from a plain one."""

    def __init__(self, convolution: nn.Conv2d, make_weight: MakeWeight) -> None:
        """Take over `convolution`; raises ValueError if it has a bias or padding by name."""
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
    """`module` as a function that uses its computed weights as they are now.

    The weights are computed here, in the caller's gradient mode, and carry its graph; every call
    reads the same tensors, with or without `no_grad`, in the forward pass or again in the backward
    pass (as checkpointing does, which needs the same graph twice). Between calls the module does
    not hold them, so it can be copied, saved and loaded at any time. Nested use is allowed.
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

    evaluate.__wrapped__ = module  # type: ignore[attr-defined]  # for code that compiles it
    return evaluate


class NormalisedWeight(ComputedWeight):
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

    def compute(self) -> Tensor:
        """length * direction / ||direction||."""
        return self.direction * (self.length / self._norm())

    def _norm(self) -> Tensor:
        dimensions = tuple(range(1, self.direction.dim()))
        return torch.linalg.vector_norm(self.direction, dim=dimensions, keepdim=True)


class NormalisedConv2d(ComputedConv2d):
    """A convolution with a normalised weight, made from a plain one whose values it takes over."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Take over `convolution`; raises ValueError if it has a bias or padding by name."""
        super().__init__(convolution, NormalisedWeight)


class NormalisedLinear(ComputedLinear):
    """A linear map with a normalised weight, made from a plain one whose values it takes over."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear, NormalisedWeight)


class SpectralWeight(ComputedWeight):
    """w = raw * min(1, bound / s), s = the largest singular value of `raw` as a matrix (out, rest).

    s = u^T raw v with u and v from power iteration, of which each computation of the weight in
    training takes one step; gradients reach `raw` through s too. For a convolution s is the norm of
    the reshaped kernel, not that of the whole map (as in the paper). With a bound below 1 a map
    made of such weights and 1-Lipschitz activations contracts.

    Source: Miyato et al. 2018 (arXiv 1802.05957), algorithm 1; the minimum is Gouk et al. 2018
    (arXiv 1804.04368), equation 9.
    """

    left: Tensor
    right: Tensor

    def __init__(self, weight: Tensor, bound: float = 1.0) -> None:
        """Take the values of `weight` (out, ...); raises ValueError unless bound > 0."""
        super().__init__()
        if bound <= 0:
            raise ValueError(f"the bound of a spectral norm must be positive, got {bound}")
        self.bound = bound
        self.raw = nn.Parameter(weight.detach().clone())
        matrix = self._matrix()
        # Fixed numbers, so that building a layer draws nothing; a row of the matrix might be zero.
        start = torch.arange(1, matrix.shape[0] + 1, dtype=matrix.dtype, device=matrix.device)
        self.register_buffer("left", functional.normalize(start.cos(), dim=0))
        self.register_buffer("right", torch.zeros_like(matrix[0].detach()))
        self._iterate(FIRST_ITERATIONS)

    def compute(self) -> Tensor:
        """The bounded weight; in training the power iteration takes a step."""
        if self.training:
            self._iterate(1)
        # Copies, since the next step overwrites buffers that a backward pass may still need.
        left, right = self.left.clone(), self.right.clone()
        norm = torch.dot(left, self._matrix() @ right)
        return self.raw * (self.bound / norm).clamp(max=1.0)

    def _matrix(self) -> Tensor:
        return self.raw.flatten(start_dim=1)

    @torch.no_grad()
    def _iterate(self, steps: int) -> None:
        matrix = self._matrix()
        for _ in range(steps):
            self.right.copy_(functional.normalize(matrix.mT @ self.left, dim=0))
            self.left.copy_(functional.normalize(matrix @ self.right, dim=0))


class SpectralConv2d(ComputedConv2d):
    """A convolution with a bounded weight, made from a plain one."""

    def __init__(self, convolution: nn.Conv2d, bound: float = 1.0) -> None:
        """Take over `convolution`; raises ValueError if it has a bias or padding by name."""
        super().__init__(convolution, lambda weight: SpectralWeight(weight, bound))


class SpectralLinear(ComputedLinear):
    """A linear map with a bounded weight, made from a plain one."""

    def __init__(self, linear: nn.Linear, bound: float = 1.0) -> None:
        super().__init__(linear, lambda weight: SpectralWeight(weight, bound))


def linear(
    source: int,
    target: int,
    *,
    weight_norm: bool = False,
    bias: bool = True,
    std: float = INITIAL_STD,
) -> nn.Module:
    """A map (..., source) -> (..., target), weight-normalised or drawn from N(0, std).

    Biases start at zero. A normalised weight keeps PyTorch's own initial values, as in the
    published code (1909.01377), whose normal draw never reaches it.
    """
    plain = nn.Linear(source, target, bias=bias)
    if bias:
        nn.init.zeros_(plain.bias)
    if weight_norm:
        return NormalisedLinear(plain)
    nn.init.normal_(plain.weight, std=std)
    return plain
