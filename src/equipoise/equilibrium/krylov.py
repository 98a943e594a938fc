"""Krylov spaces by Arnoldi's method, one per sample."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.equilibrium.low_rank import combine, row_products
from equipoise.equilibrium.small_systems import solved


class ArnoldiBasis:
    """An orthonormal basis of the Krylov space of a product and a start vector, per sample."""

    def __init__(self, start: Tensor, size: int) -> None:
        """Allocate `size` products, from start (B, D)."""
        batch, width = start.shape
        self.norm = torch.linalg.vector_norm(start, dim=1, keepdim=True)
        self.vectors = start.new_zeros(batch, size + 1, width)
        self.vectors[:, 0] = _unit(start, self.norm)
        self.hessenberg = start.new_zeros(batch, size + 1, size, dtype=torch.float64)
        self.count = 0

    def latest(self) -> Tensor:
        """The vector to multiply next (B, D)."""
        return self.vectors[:, self.count]

    def append(self, image: Tensor) -> None:
        """Take in the product of the latest vector, (B, D); orthogonalised twice for stability."""
        basis = self.vectors[:, : self.count + 1]
        for _ in range(2):
            shares = row_products(basis, image)
            image = image - combine(basis, shares)
            self.hessenberg[:, : self.count + 1, self.count] += shares
        norm = torch.linalg.vector_norm(image, dim=1, keepdim=True)
        self.hessenberg[:, self.count + 1, self.count] = norm.squeeze(1).to(torch.float64)
        self.count += 1
        self.vectors[:, self.count] = _unit(image, norm)

    def ritz_values(self) -> Tensor:
        """(B, count) complex estimates of eigenvalues; NaN for samples that are not finite."""
        square = self.hessenberg[:, : self.count, : self.count]
        finite = torch.isfinite(square).all(dim=(1, 2), keepdim=True)
        values = torch.linalg.eigvals(torch.where(finite, square, 0.0))
        return torch.where(finite.squeeze(2), values, torch.nan)

    def least_squares(self) -> Tensor:
        """The s in the space that minimises |start + A s|, (B, D); zero where it is not finite.

        By the normal equations in float64, with a ridge for spaces that closed early.
        """
        h = self.hessenberg[:, : self.count + 1, : self.count]
        normal = h.transpose(1, 2) @ h
        ridge = 1e-13 * normal.diagonal(dim1=1, dim2=2).sum(dim=1, keepdim=True)
        added = (ridge + torch.finfo(normal.dtype).tiny).expand(-1, self.count)
        normal = normal + torch.diag_embed(added)
        right = -h[:, 0] * self.norm.to(h.dtype)
        weights = solved(normal, right)
        weights = torch.where(torch.isfinite(weights), weights, 0.0).to(self.vectors.dtype)
        return combine(self.vectors[:, : self.count], weights)


def _unit(x: Tensor, norm: Tensor) -> Tensor:
    """x / norm, zero where x vanishes."""
    return x / norm.clamp(min=torch.finfo(x.dtype).tiny)
