"""Descent with adaptive steps on a loss whose values and gradients are only approximate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

REJECTED = 1.02
"""A loss this many times the last one shows that the step was far too long."""
KEPT, WEAK = 0.5, 0.25
"""Parts of the promised decrease: from the first on, steps grow; below the second, they shrink."""


class HypergradientDescent(Optimizer):
    """p <- p - lr gradient / L, with a running estimate L of the gradient's Lipschitz constant.

    At first L = |gradient| / sqrt(number of parameters), so that the root mean square of the first
    step is `lr`. A step that lowers the loss as its gradient promised divides L by `growth`; one
    that lowers it by much less multiplies L by `growth`; one that raises it doubles L. If the loss
    rises to 1.02 times the last one or is not finite, the parameters are also put back, and the
    step is repeated from there at half its length. The closure passed to `step` returns the loss at
    the present parameters, where the gradients were taken too.
    Source: Pedregosa 2016 (arXiv 1602.02355), section 3 and the published code, which takes an
    accepted step twice and has a growth of 1 / 0.95.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 1.0, growth: float = 1.25
    ) -> None:
        if lr < 0 or growth < 1:
            raise ValueError("lr must not be negative, and growth must be at least 1")
        super().__init__(params, {"lr": lr, "growth": growth})
        if len(self.param_groups) > 1:
            raise ValueError("HypergradientDescent has one step length: give it no groups")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; without gradients nothing changes.

        Raises ValueError without a closure that returns the loss.
        """
        parameters = [p for p in self.param_groups[0]["params"] if p.grad is not None]
        if closure is None:
            raise ValueError("HypergradientDescent needs a closure that returns the loss")
        loss = float(closure())
        if not parameters:
            return loss
        self._adapt(loss, parameters)
        group = self.param_groups[0]
        for parameter in parameters:
            state = self.state[parameter]
            parameter.sub_(state["gradient"], alpha=group["lr"] / group["lipschitz"])
        return loss

    def _adapt(self, loss: float, parameters: list[nn.Parameter]) -> None:
        """Update L, and choose where the next step starts: at the present point or at the last."""
        group = self.param_groups[0]
        before = group.get("loss")
        if before is None:
            count = sum(parameter.numel() for parameter in parameters)
            group["lipschitz"] = max(_norm(p.grad for p in parameters) / count**0.5, 1e-300)
        elif not loss < before + (REJECTED - 1) * abs(before):
            group["lipschitz"] *= 2
            for parameter in parameters:
                parameter.copy_(self.state[parameter]["point"])
            return
        else:
            group["lipschitz"] *= self._factor(before - loss, self._promised(parameters))
        for parameter in parameters:
            assert parameter.grad is not None
            self.state[parameter].update(point=parameter.clone(), gradient=parameter.grad.clone())
        group["loss"] = loss

    def _promised(self, parameters: list[nn.Parameter]) -> float:
        """How far, by the last gradient, the move since then should have lowered the loss.

        The move may differ from the step, since parameters may be clipped to bounds after it.
        """
        states = [(p, self.state[p]) for p in parameters if self.state[p]]
        return sum(float(((s["point"] - p) * s["gradient"]).sum()) for p, s in states)

    def _factor(self, decrease: float, promised: float) -> float:
        """The factor by which L changes after a step that is kept."""
        growth = float(self.param_groups[0]["growth"])
        if decrease < 0:
            return 2.0
        if decrease < WEAK * promised:
            return growth
        return 1 / growth if decrease >= KEPT * promised else 1.0


def _norm(tensors: Iterable[Tensor | None]) -> float:
    """The 2-norm of all tensors together."""
    return float(torch.stack([t.norm() for t in tensors if t is not None]).norm())
