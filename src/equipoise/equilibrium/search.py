"""Per-sample bookkeeping of one solve: best iterate, status, when to stop, and kept states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.equilibrium.solution import Status, StoppingRule

ACTIVE = -1
GROWTH = 1e6
"""A sample whose |f(z) - z| is this many times that of its first evaluation has diverged."""


class BestIterate:
    """Two rows per sample: one holds its best iterate, the next iterate goes into the other one.

    An improvement only swaps the two, so an iterate always costs one copy, and non-finite values
    never mix with finite ones.
    """

    def __init__(self, z0: Tensor) -> None:
        """The best of every sample is z0 (B, D) until `offer` gets a better one."""
        batch, width = z0.shape
        samples = torch.arange(batch, device=z0.device)
        self.rows = z0.new_empty(2 * batch, width)
        self.rows[batch:] = z0
        self.free = samples  # row of a sample that the next iterate takes
        self.both = 2 * samples + batch  # sum of the two rows of a sample

    def offer(self, z: Tensor, improved: Tensor) -> None:
        """Take z (B, D) as the best where improved (B,)."""
        self.rows.index_copy_(0, self.free, z)
        self.free = torch.where(improved, self.both - self.free, self.free)

    def get(self) -> Tensor:
        """The best iterates so far (B, D), a copy."""
        return self.rows.index_select(0, self.both - self.free)


@dataclass(frozen=True)
class Outcome:
    """Best iterate (B, D), its residual, the evaluation that found it, and status, (B,) each."""

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

    Nothing here loops over samples, and the host waits for the device only in `_count_active`. A
    sample is frozen at the check at which it ends, so its result does not depend on the others.
    rows: the samples of the whole batch that are still evaluated; active: how many of them had not
    ended at the latest check.
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
        self.compacted = False
        self.nfe = 0
        self.first_gap: Tensor
        self.latest: tuple[Tensor, Tensor]

    def observe(self, z: Tensor, fz: Tensor, g: Tensor, nfe: int) -> None:
        """Note evaluation number nfe: z, f(z) and g = f(z) - z, each (B, D)."""
        gap = torch.linalg.vector_norm(g, dim=1)
        size = torch.linalg.vector_norm(fz, dim=1)
        residual = self.rule(gap, size)
        self._record(residual, gap, nfe)
        improved = self._improved(residual, size)
        self.best_residual = torch.where(improved, residual, self.best_residual)
        self.best_size = torch.where(improved, size, self.best_size)
        self.steps.masked_fill_(improved, nfe)
        self.best.offer(z, improved)

    def check(self) -> bool:
        """Freeze the samples that have ended; returns whether all have. The host waits here."""
        self._close()
        self.active = self._count_active()
        self.frozen = None if self.active == len(self.status) else self.ended
        return self.active == 0

    @property
    def ended(self) -> Tensor:
        """(B,) bool: the samples that have a status."""
        return self.status != ACTIVE

    def keep_rows(self, rows: Tensor) -> None:
        """Continue with these of the present rows only, (b,)."""
        self.best = BestIterate(self.best.get()[rows])
        self.best_residual, self.best_size = self.best_residual[rows], self.best_size[rows]
        self.steps, self.status = self.steps[rows], self.status[rows]
        self.rows, self.first_gap = self.rows[rows], self.first_gap[rows]
        self.frozen = None
        self.compacted = True

    def usable(self, z: Tensor) -> Tensor:
        """The latest iterate z (B, D), the best one where a sample has ended or is not finite."""
        usable = (self.status == ACTIVE) & torch.isfinite(self.latest[0])
        return torch.where(usable.unsqueeze(1), z, self.best.get())

    def with_results(self, z: Tensor) -> Tensor:
        """The latest iterate z (B, D), the best one where a sample is frozen."""
        if self.frozen is None:
            return z
        return torch.where(self.frozen.unsqueeze(1), self.best.get(), z)

    def finish(self, nfe: int) -> None:
        """End the solve after nfe evaluations: give samples that are still active a status."""
        self._close()
        self.status.masked_fill_(self.status == ACTIVE, int(Status.BUDGET))
        if self.trace is not None:
            self.trace.extend(self.trace[-1] for _ in range(nfe - self.nfe))

    def outcome(self) -> Outcome:
        """The outcome so far."""
        return Outcome(self.best.get(), self.best_residual, self.steps, self.status)

    def _improved(self, residual: Tensor, size: Tensor) -> Tensor:
        """(B,) bool: where the latest iterate becomes the best.

        A NaN compares false, so that a non-finite iterate is never taken.
        """
        improved = residual < self.best_residual
        return improved if self.frozen is None else improved & ~self.frozen

    def _record(self, residual: Tensor, gap: Tensor, nfe: int) -> None:
        """The trace has a row per evaluation: those between two iterates repeat the earlier row.

        Samples that are no longer evaluated repeat their latest residual.
        """
        if self.trace is not None:
            self.trace.extend(self.trace[-1] for _ in range(nfe - self.nfe - 1))
            whole = (
                self.trace[-1].index_copy(0, self.rows, residual) if self.compacted else residual
            )
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


class CoupledSearch(Search):
    """Samples are judged individually but end together.

    The others can move a sample that meets the tolerance away again, so none is frozen and no
    status is final: the search ends with an evaluation at which every sample meets the tolerance or
    is lost. While a sample meets it, its latest iterate is taken, so that all come from that
    evaluation; a sample that was moved away forgets its earlier iterates. If samples do not depend
    on each other, each is as close to its solution as it would be alone. Without a tolerance, the
    search does not end at the solution, where rounding errors may throw a method far away: then the
    iterate of lowest residual is taken.
    """

    def __init__(self, z0: Tensor, rule: StoppingRule, patience: int, keep_trace: bool) -> None:
        super().__init__(z0, rule, patience, keep_trace)
        self.reached: Tensor | None = None  # (B,) bool, at the latest evaluation

    def check(self) -> bool:
        """Whether all samples have ended. The host waits here."""
        self._close()
        self.active = self._count_active()
        return self.active == 0

    def _improved(self, residual: Tensor, size: Tensor) -> Tensor:
        """(B,) bool: a smaller residual, and every one where the earlier met the tolerance."""
        best = self.best_residual
        if self.reached is not None and self.rule.tol > 0:
            best = best.masked_fill(self.reached, torch.inf)
        self.reached = self.rule.reached(residual, size)
        return residual < best

    def _close(self) -> None:
        """The status of every sample at the latest evaluation; with no tolerance, at its best."""
        assert self.reached is not None
        residual, gap = self.latest
        best = self.rule.reached(self.best_residual, self.best_size)
        self.status = torch.full_like(self.status, ACTIVE)
        ended = (
            (Status.STAGNATED, self.nfe - self.steps >= self.patience),
            (Status.DIVERGED, gap > GROWTH * self.first_gap.amax()),
            (Status.NON_FINITE, ~torch.isfinite(residual)),
            (Status.CONVERGED, self.reached if self.rule.tol > 0 else best),
        )
        for status, where in ended:  # a later entry outranks an earlier one
            self.status.masked_fill_(where, int(status))


class Trajectory:
    """Keeps the iterate of each of the chosen evaluations, counted from 1.

    A solver whose step takes several evaluations keeps the first iterate at or after the chosen
    one. If the solve ends earlier, its result stands in for the rest.
    """

    def __init__(self, evaluations: tuple[int, ...]) -> None:
        self.pending = list(evaluations)
        self.states: list[Tensor] = []

    def due(self, evaluation: int) -> bool:
        """Whether the iterate of this evaluation is to be kept."""
        return bool(self.pending) and self.pending[0] <= evaluation

    def keep(self, evaluation: int, z: Tensor) -> None:
        """Note the iterate z (B, D) for every choice up to this evaluation."""
        while self.due(evaluation):
            self.pending.pop(0)
            self.states.append(z)

    def finish(self, result: Tensor) -> list[Tensor]:
        """As many states as were chosen."""
        self.states.extend(result for _ in self.pending)
        return self.states
