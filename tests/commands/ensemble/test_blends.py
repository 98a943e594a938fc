"""Halves, the median scheme, and what is left without the best."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from equipoise.commands.ensemble.blends import (
    Halves,
    MedianScheme,
    blend_scores,
    drop_best,
    fit_weights,
    stratified_halves,
    ways_to_blend,
)
from equipoise.commands.ensemble.submission_errors import SubmissionErrors
from equipoise.errors import UserError
from equipoise.report.couplings import mean_log_mae

TYPES = ("1JHC", "1JHN", "2JHC", "2JHH", "2JHN", "3JHC", "3JHH", "3JHN")


def silent() -> None:
    """What a fit calls after each step, where nobody looks on."""


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(2, 30)), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_each_type_is_in_both_halves_and_each_coupling_in_one(
    counts: list[tuple[int, int]], seed: int
) -> None:
    kind = np.random.default_rng(0).permutation(np.concatenate([[k] * n for k, n in counts]))
    halves = stratified_halves(kind, TYPES, seed)
    assert sorted(halves.order) == list(range(len(kind)))
    assert list(halves.fitted) == list(halves.held_out)
    rows = [rows for blocks in (halves.fitted, halves.held_out) for rows in blocks.values()]
    assert [row.start for row in rows] == [0, *(row.stop for row in rows[:-1])]
    assert rows[-1].stop == len(kind)
    for name, fitted in halves.fitted.items():
        held_out = halves.held_out[name]
        sizes = [part.stop - part.start for part in (fitted, held_out)]
        assert abs(sizes[0] - sizes[1]) <= 1
        assert len(set(kind[halves.order[fitted]]) | set(kind[halves.order[held_out]])) == 1


def test_the_halves_are_the_published_ones() -> None:
    kind = np.random.default_rng(0).integers(1, 9, 500)
    half, _ = train_test_split(
        np.arange(500), stratify=kind, test_size=0.5, shuffle=True, random_state=42
    )
    assert sorted(stratified_halves(kind, TYPES, 42).order[:250]) == sorted(half)


def test_a_lonely_coupling_is_refused() -> None:
    with pytest.raises(UserError, match="only one coupling of type 1JHN"):
        stratified_halves(np.array([1, 1, 2, 3, 3]), TYPES, 42)


@pytest.mark.parametrize(
    ("submissions", "expected"),
    [(13, (9, 5)), (9, (9, 5)), (8, (8, 4)), (5, (5, 3)), (3, (3, 1)), (2, (2, 2)), (382, (9, 5))],
)
def test_the_median_scheme_is_9_and_5_or_about_that_share(
    submissions: int, expected: tuple[int, int]
) -> None:
    assert MedianScheme.of(submissions, None, None) == expected


@pytest.mark.parametrize(
    ("keep", "middle", "message"),
    [
        (0, None, "--keep 0 must be from 1 to the 6 submissions"),
        (7, 3, "--keep 7 must be from 1 to the 6 submissions"),
        (5, 7, "--middle 7 must be from 1 to --keep 5"),
        (5, 2, "both even or both odd"),
        (5, 0, "--middle 0"),
    ],
)
def test_a_median_scheme_that_cannot_be(keep: int, middle: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        MedianScheme.of(6, keep, middle)


def submissions(count: int, seed: int = 0) -> tuple[SubmissionErrors, Halves]:
    """Correlated errors for couplings of three types, the first submissions the better ones."""
    generator = np.random.default_rng(seed)
    halves = stratified_halves(generator.choice([1, 4, 8], 3000), TYPES, 42)
    shared = generator.standard_normal(3000)
    own = generator.standard_normal((count, 3000))
    quality = 1.1 ** np.arange(count)[:, None]
    return SubmissionErrors.of_array((quality * (own + shared)).astype(np.float32)), halves


def test_the_ensemble_beats_what_it_is_compared_with() -> None:
    errors, halves = submissions(13)
    fits = fit_weights(errors, halves.fitted, "single", "convex", 42, silent)
    ways = ways_to_blend(errors, halves.fitted, fits, MedianScheme(9, 5))
    scores = {
        name: mean_log_mae(blend_scores(blend, halves.held_out)) for name, blend in ways.items()
    }
    assert min(scores, key=lambda name: scores[name]) == "ensemble"
    assert scores["best single"] == pytest.approx(
        np.mean([math.log(errors.mae(rows)[0]) for rows in halves.held_out.values()])
    )
    assert len({id(fit) for fit in fits.values()}) == 1


def test_weights_of_each_type_are_fits_of_their_own() -> None:
    errors, halves = submissions(5)
    matrix = errors.stored.reshape(5, -1)
    for rows in (halves.fitted["2JHH"], halves.held_out["2JHH"]):
        matrix[:, rows] = matrix[::-1, rows]
    fits = fit_weights(errors, halves.fitted, "per_type", "convex", 42, silent)
    assert list(fits) == ["1JHC", "2JHH", "3JHN"]
    assert fits["1JHC"].weights.argmax() == 0
    assert fits["2JHH"].weights.argmax() == 4
    ways = ways_to_blend(errors, halves.fitted, fits, MedianScheme(5, 3))
    best = blend_scores(ways["best of each type"], halves.held_out)
    assert best["2JHH"].mae == pytest.approx(errors.mae(halves.held_out["2JHH"])[4])


def test_the_kept_are_those_that_are_most_often_the_median() -> None:
    base = np.random.default_rng(0).standard_normal(400)
    errors = SubmissionErrors.of_array(np.stack([base - 9, base + 0.1, base, base - 0.1, base + 9]))
    rows = slice(0, 400)
    assert MedianScheme(3, 1).chosen(errors, rows).tolist()[:1] != [4]
    assert 2 in MedianScheme(1, 1).chosen(errors, rows)


def test_without_the_best_the_next_best_leads() -> None:
    errors, halves = submissions(12)
    how = "single", "convex", 42
    fits = fit_weights(errors, halves.fitted, *how, silent)
    rows = list(drop_best(errors, halves, *how, fits, silent))
    assert [(row.dropped, row.submissions, row.best) for row in rows] == [
        (0, 12, 0), (1, 11, 1), (5, 7, 5), (10, 2, 10),
    ]  # fmt: skip
    assert all(row.ensemble < row.best_single for row in rows[:3])
    singles, ensembles = ([row[place] for row in rows] for place in (3, 4))
    assert singles == sorted(singles)
    assert ensembles == sorted(ensembles)
    ways = ways_to_blend(errors, halves.fitted, fits, MedianScheme(9, 5))
    assert ensembles[0] == mean_log_mae(blend_scores(ways["ensemble"], halves.held_out))


def test_two_submissions_leave_no_best_to_drop() -> None:
    errors, halves = submissions(2)
    fits = fit_weights(errors, halves.fitted, "single", "convex", 42, silent)
    rows = list(drop_best(errors, halves, "single", "convex", 42, fits, silent))
    assert [row.dropped for row in rows] == [0]
