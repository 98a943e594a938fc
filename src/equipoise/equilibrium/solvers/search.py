"""Per-sample bookkeeping of one solve: best iterate, status, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.equilibrium.solution import Status
from equipoise.equilibrium.solvers.best_iterate import BestIterate
from equipoise.equilibrium.solvers.stopping import StoppingRule

ACTIVE = -1
GROWTH = 1e6
"""A sample whose |f(z) - z| is this many times that of its first evaluation has diverged."""


@dataclass(frozen=True)
class Outcome:
    """Best iterate (B, D), its residual, the evaluation that met it, and the status, (B,) each."""

    z: Tensor
    residual: Tensor
    steps: Tensor
    status: Tensor

    def fields(self) -> tuple[Tensor, ...]:
        """All four, in this order."""
        return self.z, self.residual, self.steps, self.status

    def select(self, rows: Tensor) -> Outcome:
        """That of some samples."""
        return Outcome(*(field[rows] for field in self.fields()))


class Search:
    """The best iterate so far of every sample, and which samples are still being improved.

    Nothing here loops over samples, and the device is read in one place, `_count_active`. A sample
    is frozen at the check at which it ends, so its result does not depend on its neighbours.
    rows: the samples of the whole batch that are looked at; active: how many of them the latest
    check has found going on.
    """

    def __init__(self, z0: Tensor, rule: StoppingRule, patience: int, keep_trace: bool) -> None:
        batch, device = z0.shape[0], z0.device
        self.rule = rule
        self.patience = patience
        self.best = BestIterate(z0)
        self.best_residual = torch.full((batch,), torch.inf, dtype=z0.dtype, device=device)
        self.best_size = torch.zeros_like(self.best_residual)
        self.steps = torch.zeros(batch, dtype=torch.long, device=device)
        self.status = torch.full((batch,), ACTIVE, dtype=torch.int8, device=device)
        self.rows = self.best.free
        self.active = batch
        self.frozen: Tensor | None = None  # (B,) bool once the host knows that a sample has ended
        self.trace: list[Tensor] | None = [] if keep_trace else None
        self.narrowed = False
        self.nfe = 0
        self.first_gap: Tensor
        self.latest: tuple[Tensor, Tensor]

    def observe(self, z: Tensor, fz: Tensor, g: Tensor, nfe: int) -> None:
        """Note evaluation number nfe: z, f(z) and g = f(z) - z, each (B, D)."""
        gap = torch.linalg.vector_norm(g, dim=1)
        size = torch.linalg.vector_norm(fz, dim=1)
        residual = self.rule(gap, size)
        self._record(residual, gap, nfe)
        # A NaN compares false, so a non-finite iterate is never taken as the best.
        improved = residual < self.best_residual
        if self.frozen is not None:
            improved &= ~self.frozen
        self.best_residual = torch.where(improved, residual, self.best_residual)
        self.best_size = torch.where(improved, size, self.best_size)
        self.steps.masked_fill_(improved, nfe)
        self.best.offer(z, improved)

    def check(self) -> bool:
        """Freeze the samples that have ended; tell whether all have. The host waits here."""
        self._close()
        self.active = self._count_active()
        self.frozen = None if self.active == len(self.status) else self.ended
        return self.active == 0

    @property
    def ended(self) -> Tensor:
        """(B,) bool: the samples that have a status."""
        return self.status != ACTIVE

    def narrow(self, kept: Tensor) -> None:
        """Look at some of the present rows only, (b,)."""
        self.best = BestIterate(self.best.get()[kept])
        self.best_residual, self.best_size = self.best_residual[kept], self.best_size[kept]
        self.steps, self.status = self.steps[kept], self.status[kept]
        self.rows, self.first_gap = self.rows[kept], self.first_gap[kept]
        self.frozen = None
        self.narrowed = True

    def usable(self, z: Tensor) -> Tensor:
        """The latest iterate z (B, D), the best one where a sample has ended or is not finite."""
        usable = (self.status == ACTIVE) & torch.isfinite(self.latest[0])
        return torch.where(usable.unsqueeze(1), z, self.best.get())

    def with_results(self, z: Tensor) -> Tensor:
        """The latest iterate z (B, D), the best one where a sample is frozen."""
        if self.frozen is None:
            return z
        return torch.where(self.frozen.unsqueeze(1), self.best.get(), z)

    def finish(self) -> None:
        """The solve is over: give every sample that is still active its status."""
        self._close()
        self.status.masked_fill_(self.status == ACTIVE, int(Status.BUDGET))

    def outcome(self) -> Outcome:
        """What stands at present."""
        return Outcome(self.best.get(), self.best_residual, self.steps, self.status)

    def _record(self, residual: Tensor, gap: Tensor, nfe: int) -> None:
        """The trace has a row per evaluation: those between two iterates repeat the earlier row.

        Samples that are no longer looked at repeat their latest residual.
        """
        if self.trace is not None:
            self.trace.extend(self.trace[-1] for _ in range(nfe - self.nfe - 1))
            whole = self.trace[-1].index_copy(0, self.rows, residual) if self.narrowed else residual
            self.trace.append(whole)
        if self.nfe == 0:
            self.first_gap = gap.clamp(min=torch.finfo(gap.dtype).tiny)
        self.nfe = nfe
        self.latest = residual, gap

    def _close(self) -> None:
        """Give a status to every active sample that has ended with the latest evaluation."""
        residual, gap = self.latest
        active = self.status == ACTIVE
        ended = (
            (Status.STAGNATED, self.nfe - self.steps >= self.patience),
            (Status.DIVERGED, gap > GROWTH * self.first_gap),
            (Status.NON_FINITE, ~torch.isfinite(residual)),
            (Status.CONVERGED, self.rule.reached(self.best_residual, self.best_size)),
        )
        for status, where in ended:  # a later entry outranks an earlier one
            self.status.masked_fill_(active & where, int(status))

    def _count_active(self) -> int:
        return int((self.status == ACTIVE).sum())
