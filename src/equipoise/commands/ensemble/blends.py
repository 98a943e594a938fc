"""Blends of submissions: weights fitted on one half of the couplings, scores on the other.

The halves are stratified by type. The weights see the truth of their half, so the scores do not
forecast those of unknown couplings unless the submissions were made without either half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from equipoise.commands.ensemble.simplex_weights import Fit, Notify, Solver, fit
from equipoise.commands.ensemble.submission_errors import Floats, SubmissionErrors
from equipoise.errors import UserError
from equipoise.report.couplings import TypeScore, mean_log_mae, type_score

Mode = Literal["single", "per_type"]
Blocks = Mapping[str, slice]
"""The rows of the couplings of each type, in the order of the types' names."""
Blend = Callable[[str, slice], Floats]
"""The errors (n,) of a blend on the couplings of a type."""

DROPPED = (0, 1, 5, 10, 20, 50, *range(100, 100_000, 100))
"""The numbers of best submissions to leave out, one after another."""
KEPT = 9


class Halves(NamedTuple):
    """Rows (N,) in the order in which errors are stored, and where each type is in either half."""

    order: NDArray[np.int64]
    fitted: Blocks
    held_out: Blocks

    @property
    def both(self) -> dict[str, Blocks]:
        """The halves by name, the held-out one first."""
        return {"held_out": self.held_out, "fitted": self.fitted}


def stratified_halves(kind: NDArray[np.int64], types: Sequence[str], seed: int) -> Halves:
    """Split the couplings of each type into two halves; kind (N,): from 1, numbers of `types`.

    With the rows in the same order, the split is that of the published code. Raises UserError
    where a type has a single coupling.
    """
    numbers, counts = np.unique(kind, return_counts=True)
    if counts.min() < 2:
        lonely = types[int(numbers[counts.argmin()]) - 1]
        raise UserError(
            f"there is only one coupling of type {lonely}, which cannot be in both halves: "
            "leave it out"
        )
    halves = train_test_split(
        np.arange(len(kind)), stratify=kind, test_size=0.5, shuffle=True, random_state=seed
    )
    orders = [half[np.argsort(kind[half], kind="stable")] for half in halves]
    fitted, held_out = (
        _blocks(kind[order], types, start)
        for order, start in zip(orders, (0, len(orders[0])), strict=True)
    )
    return Halves(np.concatenate(orders), fitted, held_out)


def _blocks(kind: NDArray[np.int64], types: Sequence[str], start: int) -> dict[str, slice]:
    edges = start + np.searchsorted(kind, np.arange(1, len(types) + 2))
    return {
        name: slice(int(first), int(last))
        for name, first, last in zip(types, edges, edges[1:], strict=False)
        if last > first
    }


def fit_weights(
    errors: SubmissionErrors, blocks: Blocks, mode: Mode, solver: Solver, seed: int, notify: Notify
) -> dict[str, Fit]:
    """The weights of each type: `single`, the same for all, or `per_type`, a fit for each."""
    if mode == "single":
        same = fit(errors, list(blocks.values()), solver, seed, notify)
        return dict.fromkeys(blocks, same)
    return {name: fit(errors, [rows], solver, seed, notify) for name, rows in blocks.items()}


class MedianScheme(NamedTuple):
    """The mean of the middle ones of the `keep` submissions that are most often a type's median.

    Source: Bratholm et al. 2020 (arXiv 2008.05994), first place: 9 of 13, and their middle 5.
    """

    keep: int
    middle: int

    @classmethod
    def of(cls, submissions: int, keep: int | None, middle: int | None) -> MedianScheme:
        """The scheme with the given numbers, by default 9 (or all of fewer) and about 5/9 of those.

        Raises UserError where there are fewer submissions than asked for.
        """
        keep = min(KEPT, submissions) if keep is None else keep
        middle = keep - 2 * round(2 * keep / 9) if middle is None else middle
        if not 1 <= keep <= submissions:
            raise UserError(f"--keep {keep} must be from 1 to the {submissions} submissions")
        if not 1 <= middle <= keep or (keep - middle) % 2:
            raise UserError(
                f"--middle {middle} must be from 1 to --keep {keep}, both even or both odd"
            )
        return cls(keep, middle)

    def chosen(self, errors: SubmissionErrors, rows: slice) -> NDArray[np.int64]:
        """The submissions that are kept, chosen without the truth."""
        chosen: NDArray[np.int64] = np.argsort(-errors.times_median(rows), kind="stable")
        return np.sort(chosen[: self.keep])


def single_mae(errors: SubmissionErrors, blocks: Blocks) -> Floats:
    """The MAE of each submission for each type: (M, T)."""
    return np.stack([errors.mae(rows) for rows in blocks.values()], axis=1)


def scores_of(mae: Sequence[float] | Floats, blocks: Blocks) -> dict[str, TypeScore]:
    """The scores of the types from their MAE (T,)."""
    return {
        name: type_score(rows.stop - rows.start, float(value))
        for (name, rows), value in zip(blocks.items(), mae, strict=True)
    }


def mean_logs(mae: Floats, blocks: Blocks) -> Floats:
    """The mean over the types of ln MAE (M, T), floored: (M,)."""
    return np.array([mean_log_mae(scores_of(row, blocks)) for row in mae])


def ways_to_blend(
    errors: SubmissionErrors, fitted: Blocks, fits: Mapping[str, Fit], scheme: MedianScheme
) -> dict[str, Blend]:
    """The ensemble and its yardsticks; whatever needs the truth is fitted on the fitted half."""
    singles = single_mae(errors, fitted)
    best = int(mean_logs(singles, fitted).argmin())
    best_of = dict(zip(fitted, singles.argmin(axis=0), strict=True))
    kept = {name: errors.only(scheme.chosen(errors, rows)) for name, rows in fitted.items()}
    alone, equal = np.ones(1), np.full(len(errors), 1 / len(errors))
    return {
        "ensemble": _fitted(errors, fits),
        "best single": lambda _, rows: errors.only([best]).blended(alone, rows),
        "best of each type": lambda name, rows: errors.only([best_of[name]]).blended(alone, rows),
        "mean": lambda _, rows: errors.blended(equal, rows),
        "median": lambda _, rows: errors.median(rows),
        "median scheme": lambda name, rows: kept[name].middle_mean(scheme.middle, rows),
    }


def _fitted(errors: SubmissionErrors, fits: Mapping[str, Fit]) -> Blend:
    return lambda name, rows: errors.blended(fits[name].weights, rows)


def blend_scores(blend: Blend, blocks: Blocks) -> dict[str, TypeScore]:
    """The scores of a blend."""
    mae = [np.abs(blend(name, rows)).mean() for name, rows in blocks.items()]
    return scores_of(mae, blocks)


class Dropped(NamedTuple):
    """The best single submission and the ensemble, without the `dropped` best submissions.

    Scores are the means of ln MAE of the held-out half.
    """

    dropped: int
    submissions: int
    best: int
    best_single: float
    ensemble: float


def drop_best(
    errors: SubmissionErrors, halves: Halves, mode: Mode, solver: Solver, seed: int,
    fits: Mapping[str, Fit], notify: Notify,
) -> Iterator[Dropped]:  # fmt: skip
    """Fit again without the best 1, 5, 10, 20, 50, 100, 200, ... submissions on the fitted half.

    The first row is `fits`, those of all submissions. At least two are left to blend.
    """
    ranked = mean_logs(single_mae(errors, halves.fitted), halves.fitted).argsort(kind="stable")
    held_out = mean_logs(single_mae(errors, halves.held_out), halves.held_out)
    for dropped in (number for number in DROPPED if number == 0 or number <= len(errors) - 2):
        rest = errors.only(np.sort(ranked[dropped:]))
        if dropped:
            fits = fit_weights(rest, halves.fitted, mode, solver, seed, notify)
        best = int(ranked[dropped])
        score = mean_log_mae(blend_scores(_fitted(rest, fits), halves.held_out))
        yield Dropped(dropped, len(rest), best, float(held_out[best]), score)
