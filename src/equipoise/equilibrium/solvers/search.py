"""Per-sample bookkeeping of one solve: best iterate, status, and when to stop."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.equilibrium.solution import Status
from equipoise.equilibrium.solvers.stopping import StoppingRule

ACTIVE = -1
GROWTH = 1e6
"""A sample whose |f(z) - z| is this many times that of its first evaluation has diverged."""


class Search:
    """The best iterate so far of every sample, and which samples are still being improved.

    Nothing here loops over samples, and the device is read in one place, `check`. A sample is
    frozen at the check at which it ends, so its result does not depend on its neighbours.
    """

    def __init__(self, z0: Tensor, rule: StoppingRule, patience: int, keep_trace: bool) -> None:
        batch, device = z0.shape[0], z0.device
        self.rule = rule
        self.patience = patience
        self.best = z0
        self.best_residual = torch.full((batch,), torch.inf, dtype=z0.dtype, device=device)
        self.steps = torch.zeros(batch, dtype=torch.long, device=device)
        self.status = torch.full((batch,), ACTIVE, dtype=torch.int8, device=device)
        self.trace: list[Tensor] | None = [] if keep_trace else None
        self.nfe = 0
        self.first_gap: Tensor = torch.empty(0)
        self.latest: tuple[Tensor, Tensor, Tensor]

    def observe(self, z: Tensor, fz: Tensor, g: Tensor, check: bool) -> bool:
        """Note one evaluation, g = f(z) - z; with `check`, tell whether every sample has ended.

        z, fz, g are (B, D). The iterate z is kept by reference where all samples improved: the
        caller must not write into it afterwards.
        """
        self.nfe += 1
        gap = torch.linalg.vector_norm(g, dim=1)
        size = torch.linalg.vector_norm(fz, dim=1)
        residual = self.rule(gap, size)
        self.latest = residual, gap, size
        if self.nfe == 1:
            self.first_gap = gap
        if self.trace is not None:
            self.trace.append(residual)
        # A NaN compares false, so a non-finite iterate is never taken as the best.
        improved = (residual < self.best_residual) & (self.status == ACTIVE)
        self.best_residual = torch.where(improved, residual, self.best_residual)
        self.steps = self.steps.masked_fill(improved, self.nfe)
        if not check:
            self.best = torch.where(improved.unsqueeze(1), z, self.best)
            return False
        self._close()
        still_active, improved_samples = self._read(improved)
        if improved_samples == len(improved):
            self.best = z
        elif improved_samples:
            self.best = torch.where(improved.unsqueeze(1), z, self.best)
        return still_active == 0

    def finish(self) -> None:
        """The budget is spent: give every sample that is still active its status."""
        self._close()
        self.status = self.status.masked_fill(self.status == ACTIVE, Status.BUDGET)

    def _close(self) -> None:
        """Give a status to every active sample that has ended with the latest evaluation."""
        residual, gap, size = self.latest
        ended = (
            (Status.STAGNATED, self.nfe - self.steps >= self.patience),
            (Status.DIVERGED, gap > GROWTH * self.first_gap.clamp(min=torch.finfo(gap.dtype).tiny)),
            (Status.NON_FINITE, ~torch.isfinite(residual)),
            (Status.CONVERGED, self.rule.reached(self.best_residual, size)),
        )
        active = self.status == ACTIVE
        for status, where in ended:  # a later entry outranks an earlier one
            self.status = self.status.masked_fill(active & where, int(status))

    def _read(self, improved: Tensor) -> list[int]:
        """The one place where the host waits for the device."""
        return torch.stack(((self.status == ACTIVE).sum(), improved.sum())).tolist()
