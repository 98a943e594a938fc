"""Refusing second derivatives where they would be silently wrong."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor


def refuse_second_derivatives() -> None:
    """Raise RuntimeError inside a backward pass that is asked for a graph of its own.

    The graph would take the solution for a constant, and its derivatives would be silently wrong.
    """
    if torch.is_grad_enabled():
        _refuse()


class Once(torch.autograd.Function):
    """once(count, *tensors): the first `count` tensors, which no derivative may pass again.

    The others are what they depend on without a graph that says so. For backward passes that
    torch.func always runs with a graph, so that only a derivative that is really taken is refused.
    """

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The first `count` tensors, as they are."""
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> NoReturn:
        """Refuse: this is reached only where a derivative is taken a second time."""
        _refuse()


def _refuse() -> NoReturn:
    raise RuntimeError(
        "second derivatives through this gradient estimator are not available; "
        "use gradient=unrolled where a double backward is needed"
    )
