"""Linear systems of a few unknowns, one per sample: the algebra of a window of iterates."""

from __future__ import annotations

import torch
from torch import Tensor


def solved(matrix: Tensor, right: Tensor) -> Tensor:
    """The x of matrix x = right, for (B, n, n) and (B, n), without a host-device sync.

    A singular system gives infinities or NaN. While a CUDA graph is captured, by elimination: the
    libraries behind torch.linalg keep memory that belongs to a stream, and a graph is replayed on
    any.
    """
    if matrix.is_cuda and torch.cuda.is_current_stream_capturing():
        return eliminated(matrix, right)
    return torch.linalg.solve_ex(matrix, right)[0]


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
