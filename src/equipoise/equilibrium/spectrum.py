"""How strongly f contracts at a state: spectral radius and 2-norm of its Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from equipoise.equilibrium.solvers.arnoldi import ArnoldiBasis
from equipoise.equilibrium.solvers.flat_function import FlatFunction
from equipoise.equilibrium.state import Function, Layout, State

Product = Callable[[Tensor], Tensor]


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
    """f with its graph at z, in full precision; a random unit vector a sample; z and f(z)."""
    layout = Layout.of(z)
    evaluate = _in_full_precision(f, layout.device.type)
    function = FlatFunction(evaluate, layout, inputs, torch.finfo(layout.dtype).eps)
    function.keeps_graph = True
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
