"""Broyden's inverse as a product of factors that the steps of the solve make up by themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.equilibrium.low_rank import LowRankInverse, combine_plus, reciprocal, row_products
from equipoise.equilibrium.small_systems import in_one_launch


class StepChain:
    """P = prod_j (I + s_{j+1} s_j^T / |s_j|^2), the latest factor on the left, and H = P H_0.

    With H_0 = -I, Broyden's good method has exactly this H, as long as each s is -H g: one buffer
    of steps, which is read twice in an iteration, instead of two buffers of pairs that are read
    twice each. All else is algebra of m x m matrices in float64, m = the factors in memory:
    P = I + S_+ T S^T with S = (s_0 ... s_{k-1}), S_+ = (s_1 ... s_k) and a lower triangular T.

    Where the memory is full, the older half of the factors is dropped at once. The latest step is
    then not -H g for the H that is left, so that it makes no factor.

    rows: (B, size + 1, D), the steps. latest: index of the latest of them, -1 before the first.
    gram: (B, size + 1, size + 1), <s_i, s_j>. transfer: (B, size, size), T.
    Source: Kelley 1995, Iterative Methods for Linear and Nonlinear Equations, section 7.3.
    """

    def __init__(self, z0: Tensor, size: int, storage: torch.dtype) -> None:
        """No steps yet; room for `size` factors, in the dtype `storage`."""
        batch, width = z0.shape
        self.size = size
        self.latest = -1
        self.filled = 0  # rows that have been written
        self.rows = torch.empty(batch, size + 1, width, dtype=storage, device=z0.device)
        self.gram = z0.new_zeros(batch, size + 1, size + 1, dtype=torch.float64)
        self.transfer = z0.new_zeros(batch, size, size, dtype=torch.float64)
        self.rounding = torch.finfo(z0.dtype).eps

    def next(
        self, image: Tensor, frozen: Tensor | None, work: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Take in the update by the latest step, and give the next one, -H g, as h (B, D) and gain.

        image: -H_0 g (B, D). work (B, D): room for h. The step is gain (B, 1) times h; None is 1.
        frozen samples keep their H, and what is returned for them does not matter.
        """
        known = self.latest < self.size
        if not known:
            self._drop_older_half(frozen)
        if self.latest < 0:
            self._append(image, None, None, frozen)
            return image, None
        k = self.latest
        products = row_products(self.rows[:, : k + 1], image)
        if in_one_launch(self.gram):
            t, gain, overlaps = *self._fused(products, known, frozen), None
        else:
            t, gain, overlaps = self._step_by_step(products.to(torch.float64), known, frozen)
        h = combine_plus(self.rows[:, 1 : k + 1], t.to(image.dtype), image, work)
        self._append(h, gain.to(h.dtype), overlaps, frozen)
        return h, gain.to(h.dtype)

    def _fused(self, products: Tensor, known: bool, frozen: Tensor | None) -> tuple[Tensor, Tensor]:
        """t and the gain, after T and the Gram matrix have been written."""
        from equipoise.equilibrium import small_kernels

        return small_kernels.chain_update(
            products, self.transfer, self.gram, self.latest, known, self.rounding, frozen
        )

    def _step_by_step(
        self, products: Tensor, known: bool, frozen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """t, the gain, and the products of the new step with those before it."""
        k = self.latest
        t = _times(self.transfer[:, :k, :k], products[:, :k])
        # <s_j, h> for h = image + S_+ t, which is what H without an update would make of the image
        overlaps = products + _times(self.gram[:, : k + 1, 1 : k + 1], t)
        gain = self._updated(overlaps[:, k:], frozen) if known else torch.ones_like(overlaps[:, k:])
        return t, gain, gain * overlaps

    def inverse(self, start: LowRankInverse | None) -> LowRankInverse:
        """H in the pairs of T; start: H_0 as a plain sum of pairs, None for -I. Shares memory."""
        k = max(self.filled - 1, 0)
        left, right, transfer = self.rows[:, 1 : k + 1], self.rows[:, :k], self.transfer[:, :k, :k]
        if start is None:
            return LowRankInverse(left, right, core=-transfer)
        # (I + S_+ T S^T)(-I + U V^T) = -I + U V^T - S_+ T S^T + S_+ (T S^T U) V^T
        products = torch.bmm(right.to(start.u.dtype), start.u.transpose(1, 2)).to(torch.float64)
        given = start.u.shape[1]
        core = torch.eye(given + k, dtype=torch.float64, device=left.device)
        core = core.repeat(len(left), 1, 1)
        core[:, given:, :given] = torch.bmm(transfer, products)
        core[:, given:, given:] = -transfer
        u, v = torch.cat((start.u, left), dim=1), torch.cat((start.v, right), dim=1)
        return LowRankInverse(u, v, core=core)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep the steps of these samples (b,)."""
        self.rows, self.gram = self.rows[rows], self.gram[rows]
        self.transfer = self.transfer[rows]

    def _updated(self, overlap: Tensor, frozen: Tensor | None) -> Tensor:
        """The factor that the latest step s begins becomes part of T; overlap: <s, h>, (B, 1).

        The row of T: (e + <s, S_+> T) / |s|^2. Returns 1 / (1 - <s, h> / |s|^2), by which the
        update lengthens h; 1 where that is a matter of rounding, and a row of zeros for it.
        """
        k = self.latest
        inverse = reciprocal(self.gram[:, k, k]).unsqueeze(1)
        rest = 1.0 - overlap * inverse
        usable = rest.abs() > self.rounding  # false for NaN
        earlier = _times(self.transfer[:, :k, :k].transpose(1, 2), self.gram[:, k, 1 : k + 1])
        row = torch.cat((earlier, torch.ones_like(inverse)), dim=1) * inverse
        row = torch.where(usable, row, 0.0)
        if frozen is not None:
            row = torch.where(frozen.unsqueeze(1), self.transfer[:, k, : k + 1], row)
        self.transfer[:, k, : k + 1] = row
        return torch.where(usable, 1.0 / rest, 1.0)

    def _append(
        self, h: Tensor, gain: Tensor | None, overlaps: Tensor | None, frozen: Tensor | None
    ) -> None:
        """Store the step s = gain h, with <s_i, s> for the steps before it, (B, k).

        None: these are in the Gram matrix already.
        """
        self.latest = k = self.latest + 1
        step = self.rows[:, k]
        if frozen is not None:
            kept = step if k < self.filled else torch.zeros_like(step)
            step.copy_(torch.where(frozen.unsqueeze(1), kept, h if gain is None else h * gain))
        elif gain is None:
            step.copy_(h)
        else:
            torch.mul(h, gain, out=step)
        self.filled = max(self.filled, k + 1)
        if overlaps is not None:
            self.gram[:, k, :k] = overlaps
            self.gram[:, :k, k] = overlaps
        self.gram[:, k, k] = torch.linalg.vector_norm(step, dim=1, dtype=h.dtype).double().square()

    def _drop_older_half(self, frozen: Tensor | None) -> None:
        """Keep the later half of the factors; their part of T is that of the shorter product.

        Those of frozen samples stay where they are. Fewer than two rows are no factor.
        """
        kept = (self.size - 1) // 2
        first = self.latest - kept
        for row in range(kept + 1):
            moved = self.rows[:, first + row]
            if frozen is not None:
                moved = torch.where(frozen.unsqueeze(1), self.rows[:, row], moved)
            self.rows[:, row] = moved
        self.gram[:, : kept + 1, : kept + 1] = self.gram[:, first:, first:].clone()
        transfer = torch.zeros_like(self.transfer)
        transfer[:, :kept, :kept] = self.transfer[:, first:, first:]
        if frozen is not None:
            transfer = torch.where(frozen.view(-1, 1, 1), self.transfer, transfer)
        self.transfer = transfer
        self.latest = kept if kept else -1


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """(B, m, n), (B, n) -> (B, m)."""
    return torch.bmm(matrix, vector.unsqueeze(2)).squeeze(2)
