"""Linear systems of a few unknowns, one per sample: the algebra of a window of iterates."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import torch
from torch import Tensor

from equipoise.equilibrium.flat_function import transformed

LARGEST = 16
"""Unknowns of a system that one launch solves; larger ones go to a library."""


def solved(matrix: Tensor, right: Tensor) -> Tensor:
    """The x of matrix x = right, for (B, n, n) and (B, n), without a host-device sync.

    A singular system gives infinities or NaN. On a GPU with Triton it is one launch. Without
    Triton, and while a CUDA graph is captured, it uses elimination: the libraries behind
    torch.linalg keep memory that belongs to one stream, but a graph may be replayed on any.
    """
    if in_one_launch(matrix):
        from equipoise.equilibrium import small_kernels

        return small_kernels.solve_systems(matrix, right)
    if matrix.is_cuda and torch.cuda.is_current_stream_capturing():
        return eliminated(matrix, right)
    return torch.linalg.solve_ex(matrix, right)[0]


def window_weights(
    products: Tensor,
    cosines: Tensor,
    inverse_norm: Tensor,
    slot: int,
    ridge: float,
    newest: Tensor,
) -> Tensor:
    """a = K^-1 1 / (1^T K^-1 1), with K the Gram matrix of a window and a ridge on its diagonal.

    products (B, kept): of the newest vector, in row `slot`, with the `kept` vectors of the window.
    cosines (B, memory, memory), of the vectors, ridge included, and inverse_norm (B, memory), 1
    over their norms, in float64: rows of the newest vector are written here. The answer (B, kept)
    is in the dtype of `products`.

    Solved in the variables a_i |g_i|, in which K has a unit diagonal, so that recent small vectors
    are not drowned by the ridge of old large ones. A sample whose system has no finite solution
    gets `newest`, (kept,) in float64: the weights of the newest vector alone.
    """
    if in_one_launch(cosines):
        from equipoise.equilibrium import small_kernels

        return small_kernels.window_weights(products, cosines, inverse_norm, slot, ridge)
    kept = products.shape[1]
    exact = products.to(torch.float64)
    square = exact[:, slot].clamp(min=torch.finfo(torch.float64).tiny)
    inverse_norm[:, slot] = square.rsqrt()
    inverse = inverse_norm[:, :kept]
    row = exact * inverse * inverse[:, slot, None]
    cosines[:, slot, :kept] = row
    cosines[:, :kept, slot] = row
    cosines[:, slot, slot] += ridge
    weights = solved(cosines[:, :kept, :kept], inverse) * inverse
    weights = weights / weights.sum(dim=1, keepdim=True)
    solvable = weights.abs().amax(dim=1, keepdim=True) < torch.inf  # false for NaN
    return torch.where(solvable, weights, newest).to(products.dtype)


def in_one_launch(matrix: Tensor) -> bool:
    """Whether the kernels can solve these systems; a tracer or a transform cannot follow them."""
    if not matrix.is_cuda or matrix.shape[1] > LARGEST:
        return False
    if torch.compiler.is_compiling() or transformed():
        return False
    return matrix.device.index == torch.cuda.current_device() and _kernels_work(matrix.device)


WORKING: dict[torch.device, bool] = {}
"""Of each device, whether Triton is installed and could build a kernel for it."""


def _kernels_work(device: torch.device) -> bool:
    """Try once, but not while a graph is captured, where nothing can be built."""
    if device not in WORKING:
        if torch.cuda.is_current_stream_capturing():
            return False
        WORKING[device] = _could_be_built(device)
    return WORKING[device]


def _could_be_built(device: torch.device) -> bool:
    if find_spec("triton") is None:
        return False
    from equipoise.equilibrium import small_kernels

    matrix = torch.eye(2, dtype=torch.float64, device=device).unsqueeze(0)
    try:
        small_kernels.solve_systems(matrix, matrix[:, 0])
    except Exception as error:  # of a compiler, of its headers, of a driver
        first = (str(error) or type(error).__name__).partition("\n")[0]
        warnings.warn(
            f"Triton cannot build kernels here ({first}); systems of a few unknowns take several "
            "launches each",
            stacklevel=2,
        )
        return False
    return True


def eliminated(matrix: Tensor, right: Tensor) -> Tensor:
    """The x of matrix x = right, for (B, n, n) and (B, n), by operations that every runtime has.

    Gauss-Jordan elimination with partial pivoting, unrolled for a small n. A singular system gives
    infinities or NaN, as `torch.linalg.solve_ex` does.
    Source: Golub and Van Loan 2013, Matrix Computations, section 3.4.
    """
    size = matrix.shape[1]
    rows = torch.arange(size, device=matrix.device)
    system = torch.cat((matrix, right.unsqueeze(2)), dim=2)
    for column in range(size):
        here = rows == column
        chosen = here.unsqueeze(0)
        if column < size - 1:  # the last column has one candidate
            largest = system[:, column:, column].abs().argmax(dim=1, keepdim=True) + column
            chosen = rows == largest
        pivot = torch.where(chosen.unsqueeze(2), system, 0.0).sum(dim=1, keepdim=True)
        if column < size - 1:
            swapped = system[:, column : column + 1]
            system = torch.where(chosen.unsqueeze(2), swapped, system)
        pivot = pivot / pivot[:, :, column : column + 1]
        reduced = system - system[:, :, column : column + 1] * pivot
        system = torch.where(here.unsqueeze(1), pivot, reduced)
    return system[:, :, -1]
