"""How near an estimated gradient is to the exact one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from equipoise.equilibrium.gradients import GradientEstimator
    from equipoise.equilibrium.layer import Equilibrium
    from equipoise.equilibrium.solvers import Solver


@dataclass(frozen=True)
class Fidelity:
    """Cosine of the angle between two gradients, and |estimated| / |exact|; scalars on the device.

    A gradient is the one vector that all tensors make up together.
    """

    cosine: Tensor
    norm_ratio: Tensor


def compare_gradients(
    estimated: Iterable[Tensor | None], exact: Iterable[Tensor | None]
) -> Fidelity:
    """The fidelity of two gradients given tensor by tensor; None stands for zero.

    Raises ValueError where there is no tensor to compare.
    """
    pairs = zip(estimated, exact, strict=True)
    sums = [_products(a, b) for a, b in pairs if a is not None or b is not None]
    if not sums:
        raise ValueError("there is no gradient to compare")
    inner, square, exact_square = torch.stack(sums).sum(0).unbind()
    tiny = torch.finfo(torch.float64).tiny
    size, exact_size = square.sqrt().clamp(min=tiny), exact_square.sqrt().clamp(min=tiny)
    return Fidelity(inner / size / exact_size, size / exact_size)


def gradient_fidelity(
    layers: Sequence[Equilibrium],
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    reference: GradientEstimator,
    tighten: Callable[[Solver], Solver] | None = None,
) -> Fidelity:
    """Fidelity of the layers' estimators against `reference`, on the gradient of loss().

    tighten: makes of a layer's training solver the one that the reference's equilibrium is found
    with; None leaves it, so that both gradients are taken at the same state. The loss is computed
    twice, under the reference last, with equal random numbers; nothing is written into `.grad`, and
    the layers have their own estimators, solvers and reports again afterwards.
    """
    estimated = _gradient(loss, parameters)
    return compare_gradients(estimated, _under(reference, tighten, layers, loss, parameters))


def _under(
    reference: GradientEstimator,
    tighten: Callable[[Solver], Solver] | None,
    layers: Sequence[Equilibrium],
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    own = [(layer.gradient, layer.solver, layer.report) for layer in layers]
    try:
        for layer in layers:
            layer.gradient = reference
            layer.solver = layer.solver if tighten is None else tighten(layer.solver)
        return _gradient(loss, parameters)
    finally:
        for layer, (gradient, solver, report) in zip(layers, own, strict=True):
            layer.gradient, layer.solver, layer.report = gradient, solver, report


def _gradient(
    loss: Callable[[], Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    device = parameters[0].device
    devices = [] if device.type == "cpu" else [device]
    with torch.enable_grad(), torch.random.fork_rng(devices, device_type=device.type):
        return torch.autograd.grad(loss(), parameters, allow_unused=True)


def _products(a: Tensor | None, b: Tensor | None) -> Tensor:
    """<a, b>, <a, a>, <b, b> in float64."""
    some = a if a is not None else b
    assert some is not None
    zero = some.new_zeros((), dtype=torch.float64)
    left = None if a is None else a.flatten().double()
    right = None if b is None else b.flatten().double()
    inner = zero if left is None or right is None else left.dot(right)
    square = zero if left is None else left.dot(left)
    return torch.stack((inner, square, zero if right is None else right.dot(right)))
