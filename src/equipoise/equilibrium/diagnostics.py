"""How close an estimated gradient is to the exact one, and how strongly f contracts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.equilibrium.backward_graph import Fidelity, compare_gradients
from equipoise.equilibrium.flat_function import FlatFunction
from equipoise.equilibrium.gradients import GradientEstimator
from equipoise.equilibrium.krylov import ArnoldiBasis
from equipoise.equilibrium.layer import Equilibrium
from equipoise.equilibrium.solvers import Solver
from equipoise.equilibrium.state import Function, Layout, State, detached

Product = Callable[[Tensor], Tensor]


def gradient_fidelity(
    layers: Sequence[Equilibrium],
    loss: Callable[[], Tensor],
    parameters: Sequence[Tensor],
    reference: GradientEstimator,
    tighten: Callable[[Solver], Solver] | None = None,
) -> Fidelity:
    """Fidelity of the layers' estimators against `reference`, on the gradient of loss().

    tighten: turns a layer's training solver into the one that finds the reference's equilibrium;
    None keeps it, so that both gradients are taken at the same state. The loss is computed twice,
    the second time with the reference, with the same random numbers; nothing is written into
    `.grad`, and afterwards the layers have their own estimators, solvers and reports again.
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
    before = [(layer.gradient, layer.solver, layer.report) for layer in layers]
    try:
        for layer in layers:
            layer.gradient = reference
            layer.solver = layer.solver if tighten is None else tighten(layer.solver)
        return _gradient(loss, parameters)
    finally:
        for layer, (gradient, solver, report) in zip(layers, before, strict=True):
            layer.gradient, layer.solver, layer.report = gradient, solver, report


def _gradient(
    loss: Callable[[], Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    device = parameters[0].device
    devices = [] if device.type == "cpu" else [device]
    with torch.enable_grad(), torch.random.fork_rng(devices, device_type=device.type):
        return torch.autograd.grad(loss(), parameters, allow_unused=True)


def spectral_radius(
    f: Function, z: State, *inputs: Tensor, products: int = 60, krylov_size: int = 20
) -> Tensor:
    """Per sample the largest modulus of an eigenvalue of J_f at z: (B,).

    The first products - krylov_size products with J^T are power steps, which turn a random vector
    towards the dominant eigenvalues; a Krylov space of the rest resolves them, complex pairs too,
    for which a Rayleigh quotient is meaningless. Below 1: the fixed-point iteration converges near
    z. Source: Saad 2011, Numerical Methods for Large Eigenvalue Problems, sections 4.1 and 6.2.
    """
    if not 1 <= krylov_size <= products:
        raise ValueError("krylov_size must lie between 1 and products")
    function, x, _ = _linearised(f, z, inputs)
    for _ in range(products - krylov_size):
        x = _normalised(function.transposed_product(x))
    return _largest_ritz_value(function.transposed_product, x, krylov_size)


def jacobian_spectral_norm(f: Function, z: State, *inputs: Tensor, krylov_size: int = 20) -> Tensor:
    """Per sample the largest singular value |J_f|_2 at z: (B,).

    From a Krylov space of J^T J, whose estimates are never above the truth but for the error of the
    differences that give J v. Costs `krylov_size` evaluations and products. Below 1: f contracts.
    Source: Golub and Van Loan 2013, Matrix Computations, section 10.4.
    """
    if krylov_size < 1:
        raise ValueError(f"krylov_size must be at least 1, got {krylov_size}")
    function, x, (flat, fz) = _linearised(f, z, inputs)

    def product(v: Tensor) -> Tensor:
        return function.transposed_product(function.product(flat, fz, v))

    return _largest_ritz_value(product, x, krylov_size).sqrt()


def _linearised(
    f: Function, z: State, inputs: tuple[Tensor, ...]
) -> tuple[FlatFunction, Tensor, tuple[Tensor, Tensor]]:
    """f with its graph at z, in full precision; a random unit vector per sample; z and f(z)."""
    layout = Layout.of(z)
    evaluate = _in_full_precision(f, layout.device.type)
    function = FlatFunction(evaluate, layout, inputs, torch.finfo(layout.dtype).eps)
    function.origin = detached
    flat = layout.flatten(z).detach()
    fz = function(flat)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(flat.shape, generator=generator, dtype=flat.dtype).to(flat.device)
    return function, _normalised(start), (flat, fz)


def _in_full_precision(f: Function, device_type: str) -> Function:
    """f outside autocast, whose rounding would drown the differences."""

    def evaluate(*arguments: State) -> State:
        with torch.autocast(device_type, enabled=False):
            result: State = f(*arguments)
        return result

    return evaluate


def _normalised(x: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / size.clamp(min=torch.finfo(x.dtype).tiny)


@torch.no_grad()
def _largest_ritz_value(product: Product, start: Tensor, size: int) -> Tensor:
    basis = ArnoldiBasis(start, min(size, start.shape[1]))
    for _ in range(min(size, start.shape[1])):
        basis.append(product(basis.latest()))
    return basis.ritz_values().abs().amax(dim=1).to(start.dtype)


@dataclass(frozen=True)
class Contraction:
    """factor (B,): by which an evaluation multiplies the residual; needed (B,): evaluations."""

    factor: Tensor
    needed: Tensor


def contraction_of(trace: Tensor, tol: float) -> Contraction:
    """The contraction of each sample from the residuals (nfe, B) of all evaluations of a solve.

    The lowest residual so far falls as factor^evaluation: the factor is that of a least-squares
    line through its logarithm, up to where the sample reaches `tol`. needed: the evaluation that
    reached tol, or the one at which the line reaches it; infinite if the residual does not fall.
    Source of the linear rate: Ortega and Rheinboldt 1970, section 9.2.
    """
    finite = trace.double().nan_to_num(nan=torch.inf, posinf=torch.inf)
    best = finite.cummin(dim=0).values.clamp(min=torch.finfo(torch.float32).tiny)
    reached = best <= tol
    evaluations = len(best)
    first = torch.where(reached.any(0), reached.double().argmax(0) + 1, evaluations)
    slope = _slope(best.clamp(max=torch.finfo(torch.float32).max).log(), first)
    left = (best[-1].log() - math.log(tol)).clamp(min=0.0)
    more = torch.where(
        slope < 0, left / -slope.clamp(max=-torch.finfo(slope.dtype).tiny), torch.inf
    )
    needed = torch.where(reached[-1], first.double(), evaluations + more)
    return Contraction(slope.exp(), needed)


def _slope(logarithms: Tensor, counted: Tensor) -> Tensor:
    """Per column the slope of the line through its first `counted` (B,) values; 0 for only one."""
    place = torch.arange(len(logarithms), dtype=logarithms.dtype, device=logarithms.device)
    weight = (place.unsqueeze(1) < counted).to(logarithms.dtype)
    total = weight.sum(0)
    x = place.unsqueeze(1) - (weight * place.unsqueeze(1)).sum(0) / total
    spread = (weight * x.square()).sum(0)
    moment = (weight * x * logarithms).sum(0)
    return torch.where(spread > 0, moment / spread.clamp(min=1e-12), 0.0)


def budget_for(needed: Tensor, fraction: float, margin: float, least: int, most: int) -> int:
    """The evaluations with which `fraction` of the samples, needed (B,), reach the tolerance.

    margin: the part of them that is added. The result lies between `least` and `most`; costs one
    host-device sync.
    """
    ordered = needed.sort().values
    place = min(max(math.ceil(fraction * len(ordered)) - 1, 0), len(ordered) - 1)
    wanted = float(ordered[place]) * (1.0 + margin)
    return most if not math.isfinite(wanted) else min(max(math.ceil(wanted), least), most)
