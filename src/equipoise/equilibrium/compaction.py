"""Dropping finished samples from the evaluations, and reassembling the batch at the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.equilibrium.iteration import Iteration
from equipoise.equilibrium.low_rank import LowRankInverse
from equipoise.equilibrium.search import Outcome, Search
from equipoise.equilibrium.state import Layout


@dataclass
class _Departed:
    """Samples that have left together, after how many evaluations, and what they leave with.

    rows: theirs of the whole batch.
    """

    evaluations: int
    rows: Tensor
    outcome: Outcome
    inverse: LowRankInverse | None


class Compaction:
    """Once the fraction `share` of the rows that f sees has ended, f sees only the others.

    It costs no host-device sync: the check that froze the others has counted those that stay.
    """

    def __init__(self, share: float, batch: int) -> None:
        self.share = share
        self.batch = batch
        self.departed: list[_Departed] = []

    def due(self, search: Search) -> bool:
        """Whether enough samples have ended, and some have not."""
        present = len(search.status)
        return 0 < search.active <= present - max(self.share * present, 1)

    def drop(self, search: Search, iteration: Iteration, evaluations: int) -> Tensor:
        """Drop the ended samples; returns which of the present rows stay, (search.active,).

        evaluations: of f so far.
        """
        order = search.ended.argsort(stable=True)
        staying, leaving = order[: search.active], order[search.active :]
        inverse = iteration.inverse()
        self.departed.append(
            _Departed(
                evaluations,
                search.rows[leaving],
                search.outcome().select(leaving),
                None if inverse is None else inverse.select(leaving),
            )
        )
        search.keep_rows(staying)
        iteration.keep_rows(staying)
        return staying

    def sample_evaluations(self, evaluations: int) -> int:
        """Total rows over all `evaluations` of f: a sample counts until it is dropped."""
        spared = sum((evaluations - gone.evaluations) * len(gone.rows) for gone in self.departed)
        return self.batch * evaluations - spared

    def whole(self, search: Search) -> Outcome:
        """The outcome of every sample of the batch."""
        outcome = search.outcome()
        if not self.departed:
            return outcome
        groups = [(search.rows, outcome)] + [(gone.rows, gone.outcome) for gone in self.departed]
        rows = torch.cat([rows for rows, _ in groups])
        return Outcome(
            *(
                _scattered(rows, torch.cat(fields))
                for fields in zip(*(outcome.fields() for _, outcome in groups), strict=True)
            )
        )

    def whole_state(self, search: Search, z: Tensor) -> Tensor:
        """z of the present samples with the results of those that have left: (B, D)."""
        if not self.departed:
            return z
        rows = torch.cat([search.rows, *(gone.rows for gone in self.departed)])
        return _scattered(rows, torch.cat([z, *(gone.outcome.z for gone in self.departed)]))

    def whole_inverse(
        self, search: Search, inverse: LowRankInverse | None
    ) -> LowRankInverse | None:
        """The inverse of every sample; those that have left keep the pairs that they left with."""
        if inverse is None or not self.departed:
            return inverse
        groups = [(search.rows, inverse)] + [(gone.rows, gone.inverse) for gone in self.departed]
        pairs = max(part.u.shape[1] for _, part in groups if part is not None)
        u = inverse.u.new_zeros(self.batch, pairs, inverse.u.shape[2])
        v = torch.zeros_like(u)
        scale = u.new_ones(self.batch, 1)
        for rows, part in groups:
            assert part is not None
            plain, units = part.in_units()
            u[rows, : part.u.shape[1]] = plain.u
            v[rows, : part.v.shape[1]] = plain.v
            if units is not None:
                scale[rows] = units
        if inverse.scale is None:
            return LowRankInverse(u, v, inverse.oldest)
        return LowRankInverse(
            u * scale.unsqueeze(2), v, inverse.oldest, scale, definite=inverse.definite
        )


def check_rows(layout: Layout, inputs: tuple[Tensor, ...]) -> None:
    """Raise ValueError if an input lacks the row per sample that dropping rows needs."""
    for tensor in inputs:
        if tensor.ndim == 0 or tensor.shape[0] != layout.batch:
            raise ValueError(
                f"compact_at drops rows of f's inputs, so all of them need the {layout.batch} rows "
                f"of the state; one has the shape {tuple(tensor.shape)}: read it by closure"
            )


def _scattered(rows: Tensor, values: Tensor) -> Tensor:
    """values (B, ...), put where `rows` (B,) says."""
    return torch.empty_like(values).index_copy_(0, rows, values)
