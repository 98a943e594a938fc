"""A table of samples, and products of its features that can be differentiated twice."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor


class Table(TypedDict):
    """features (N, F), dense or sparse CSR; transposed (F, N) of the same layout; target (N,)."""

    features: Tensor
    transposed: Tensor
    target: Tensor


class SparseProduct(torch.autograd.Function):
    """matrix (N, F) @ dense (F, C), with the transpose available, so that nothing is converted.

    The derivative with respect to `dense` is the same function with the two exchanged; the matrix
    has none.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, dense: Tensor) -> Tensor:
        """matrix @ dense."""
        ctx.matrices = matrix, transposed
        return _sparse_product(matrix, dense)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, None, Tensor]:
        """transposed @ cotangent."""
        matrix, transposed = ctx.matrices
        return None, None, SparseProduct.apply(transposed, matrix, cotangent)


def forward_product(table: Table, weights: Tensor) -> Tensor:
    """features @ weights: (F, C) -> (N, C)."""
    return _product(table["features"], table["transposed"], weights)


def backward_product(table: Table, residuals: Tensor) -> Tensor:
    """features^T @ residuals: (N, C) -> (F, C)."""
    return _product(table["transposed"], table["features"], residuals)


def _product(matrix: Tensor, transposed: Tensor, dense: Tensor) -> Tensor:
    if matrix.layout == torch.strided:
        return matrix @ dense
    if torch.is_grad_enabled() and dense.requires_grad:
        product: Tensor = SparseProduct.apply(matrix, transposed, dense)
        return product
    return _sparse_product(matrix, dense)


def _sparse_product(matrix: Tensor, dense: Tensor) -> Tensor:
    """A vector, since multiplying it is faster than a matrix of one column."""
    return (matrix @ dense[:, 0]).unsqueeze(1) if dense.shape[1] == 1 else matrix @ dense
