"""The bookkeeping of a solve whose samples depend on each other."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.equilibrium.solution import Status
from equipoise.equilibrium.solvers.search import ACTIVE, GROWTH, Search
from equipoise.equilibrium.solvers.stopping import StoppingRule


class CoupledSearch(Search):
    """All samples are judged each by itself, and end together.

    A sample that meets the tolerance can be moved away again by the others, so none is frozen, and
    no status lasts: the search ends with an evaluation at which every sample meets it, or is not
    to be saved. While a sample meets it, its latest iterate is taken, so that all of them come from
    that evaluation; one that was moved away forgets its earlier iterates. Where samples do not
    depend on each other, a sample is as near to its solution as it would be alone.
    """

    def __init__(self, z0: Tensor, rule: StoppingRule, patience: int, keep_trace: bool) -> None:
        super().__init__(z0, rule, patience, keep_trace)
        self.reached: Tensor | None = None  # (B,) bool, at the latest evaluation

    def observe(self, z: Tensor, fz: Tensor, g: Tensor, nfe: int) -> None:
        """Note evaluation number nfe: z, f(z) and g = f(z) - z, each (B, D)."""
        gap = torch.linalg.vector_norm(g, dim=1)
        size = torch.linalg.vector_norm(fz, dim=1)
        residual = self.rule(gap, size)
        self._record(residual, gap, nfe)
        reached = self.rule.reached(residual, size)
        best = self.best_residual
        if self.reached is not None:
            best = best.masked_fill(self.reached, torch.inf)
        improved = residual < best
        self.best_residual = torch.where(improved, residual, self.best_residual)
        self.best_size = torch.where(improved, size, self.best_size)
        self.steps.masked_fill_(improved, nfe)
        self.best.offer(z, improved)
        self.reached = reached

    def check(self) -> bool:
        """Tell whether all samples have ended. The host waits here."""
        self._close()
        self.active = self._count_active()
        return self.active == 0

    def _close(self) -> None:
        """The status of every sample at the latest evaluation."""
        assert self.reached is not None
        residual, gap = self.latest
        self.status = torch.full_like(self.status, ACTIVE)
        ended = (
            (Status.STAGNATED, self.nfe - self.steps >= self.patience),
            (Status.DIVERGED, gap > GROWTH * self.first_gap.amax()),
            (Status.NON_FINITE, ~torch.isfinite(residual)),
            (Status.CONVERGED, self.reached),
        )
        for status, where in ended:  # a later entry outranks an earlier one
            self.status.masked_fill_(where, int(status))
