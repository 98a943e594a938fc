"""Positive weights of submissions, with sum 1, that minimise the mean over types of ln MAE.

The MAE of a type is convex in the weights, so the fit to one type alone is a convex problem, whose
optimum is found and proven by its dual. The mean of the logarithms of several types is not convex.
There `convex` majorises: since ln is concave, the objective changes by at most the mean of
MAE / (current MAE), which is convex, minus 1. Descending on this majorant, renewed at the current
weights after each step, ends where no change of the weights improves to first order.

Both use Newton's method, with |r| rounded to a parabola within a width of 0 that is narrowed
until the gap to the dual is small: each step is a least squares problem on the simplex. The
published method, `adam`, descends over the logits of a softmax instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls
from scipy.special import softmax

from equipoise.commands.ensemble.submission_errors import Couplings, Floats, SubmissionErrors
from equipoise.report.couplings import FLOOR

Solver = Literal["convex", "adam"]
Notify = Callable[[], object]

TOLERANCE = 1e-5
"""Tolerance of the gap, in the unit of ln MAE."""
NARROWER, WIDTHS = 0.3, 16
"""Fraction of couplings in the rounded part of |r|: 0.3 at first, then 0.3 of those, etc."""
SETTLED = 0.3
"""Fraction of the gap that may be left at one width before the next."""
NEWTON_STEPS, HALVINGS = 30, 30
FRACTIONS = tuple(NARROWER**level for level in range(1, WIDTHS + 1))
RIDGE = 1e-9
LEARNING_RATE, EPOCHS, BATCHES, AVERAGED = 0.32, 200, 10, 50


class Fit(NamedTuple):
    """Weights (M,), the mean over the types of ln MAE there, and the remaining gap.

    gap: in the mean over the types, MAE / MAE now falls below 1 - gap with no other weights. For
    one type that bounds the optimum; for several it says that the weights are stationary.
    """

    weights: Floats
    objective: float
    gap: float


def fit(
    errors: SubmissionErrors, blocks: Sequence[slice], solver: Solver, seed: int, notify: Notify
) -> Fit:
    """The weights for the couplings in `blocks`, one slice of them for each type.

    seed: of the batches of `adam`; notify: called after each step.
    """
    if solver == "convex":
        return fit_convex(errors, blocks, notify)
    return fit_adam(errors, blocks, seed, notify)


def fit_convex(errors: SubmissionErrors, blocks: Sequence[slice], notify: Notify) -> Fit:
    """Minimise by Newton's method on narrower and narrower roundings of |r|, from equal weights."""
    weights = np.full(len(errors), 1 / len(errors))
    residuals = [errors.blended(weights, rows) for rows in blocks]
    widths = [np.inf] * len(blocks)
    for fraction in FRACTIONS:
        pairs = zip(residuals, widths, strict=True)
        widths = [max(FLOOR, min(_width(r, fraction), NARROWER * width)) for r, width in pairs]
        for _ in range(NEWTON_STEPS):
            point = _Point(errors, blocks, residuals, widths)
            notify()
            if point.gap < TOLERANCE:
                return Fit(weights, point.objective, point.gap)
            if point.slope @ weights - point.slope.min() < SETTLED * point.gap:
                break
            direction = point.newton(weights) - weights
            changes = [errors.blended(direction, rows) for rows in blocks]
            length = point.length(changes, float(point.slope @ direction))
            weights = weights + length * direction
            residuals = [r + length * e for r, e in zip(residuals, changes, strict=True)]
    return Fit(weights, point.objective, point.gap)


def gap_at(errors: SubmissionErrors, blocks: Sequence[slice], weights: Floats) -> Fit:
    """Objective and gap of given weights; the gap is the smallest over all widths."""
    residuals = [errors.blended(weights, rows) for rows in blocks]
    points = (
        _Point(errors, blocks, residuals, [_width(r, fraction) for r in residuals])
        for fraction in FRACTIONS[:8]
    )
    best = min(points, key=lambda point: point.gap)
    return Fit(weights, best.objective, best.gap)


def _width(residuals: Floats, fraction: float) -> float:
    """The distance from 0 within which this fraction of the residuals lies."""
    return max(FLOOR, float(np.quantile(np.abs(residuals), fraction)))


def _rounded(residuals: Floats, width: float) -> float:
    """The mean of |r|, rounded to a parabola within the width: smooth, and never below |r|."""
    size = np.abs(residuals)
    return float(np.where(size < width, (size**2 / width + width) / 2, size).mean())


class _Point:
    """The objective at the residuals of some weights: its value, its slope and its gap."""

    def __init__(
        self, errors: SubmissionErrors, blocks: Sequence[slice], residuals: Sequence[Floats],
        widths: Sequence[float],
    ) -> None:  # fmt: skip
        self.errors, self.blocks = errors, blocks
        self.residuals, self.widths = residuals, widths
        mae = np.array([np.abs(r).mean() for r in residuals])
        self.objective = float(np.log(mae.clip(FLOOR)).mean())
        slopes = np.stack([
            errors.products((r / width).clip(-1, 1), rows) / len(r)
            for r, width, rows in zip(residuals, widths, blocks, strict=True)
        ])  # fmt: skip
        # For any factors from -1 to 1, a blend's MAE is at least its mean product with them,
        # and never below 0.
        bound = (slopes / (mae + FLOOR)[:, None]).mean(axis=0).min()
        self.gap = float((mae / (mae + FLOOR)).mean() - max(0.0, bound))
        self.scales = 1 / (len(blocks) * self._smooth(residuals))
        self.slope = self.scales @ slopes

    def _smooth(self, residuals: Sequence[Floats]) -> Floats:
        return np.array([_rounded(r, w) for r, w in zip(residuals, self.widths, strict=True)])

    def newton(self, weights: Floats) -> Floats:
        """The weights that minimise the quadratic model of the majorant."""
        curvature = np.zeros((len(weights), len(weights)))
        parts = zip(self.residuals, self.widths, self.blocks, self.scales, strict=True)
        for r, width, rows, scale in parts:
            curvature += scale / (len(r) * width) * self.errors.gram(np.abs(r) < width, rows)
        ridge = RIDGE * np.trace(curvature) + 1e-6 * np.abs(self.slope).max()
        curvature += ridge * np.eye(len(weights))
        return least_on_simplex(curvature, self.slope - curvature @ weights)

    def length(self, changes: Sequence[Floats], slope: float) -> float:
        """The step along residual `changes`: 1, halved until the objective falls."""
        now, step = np.log(self._smooth(self.residuals)).mean(), 1.0
        for _ in range(HALVINGS):
            ahead = [r + step * e for r, e in zip(self.residuals, changes, strict=True)]
            if np.log(self._smooth(ahead)).mean() <= now + 1e-4 * step * slope:
                return step
            step /= 2
        return 0.0


def least_on_simplex(curvature: Floats, slope: Floats) -> Floats:
    """The w >= 0 of sum 1 that minimises w curvature w / 2 + slope w; curvature is definite.

    That is |R w - b| for the factor R of the curvature, and |(R - b 1) w| where the sum is 1. With
    an additional row that asks for the sum 1, the best w >= 0 of any sum has the same direction.
    """
    factor = cholesky(curvature)
    aim = -solve_triangular(factor, slope, trans=1)
    matrix = factor - aim[:, None]
    scale = np.linalg.norm(matrix) / np.sqrt(len(slope)) + np.finfo(float).tiny
    matrix = np.vstack([matrix / scale, np.ones(len(slope))])
    free, _ = nnls(matrix, np.append(np.zeros(len(slope)), 1.0), maxiter=30 * len(slope))
    return free / free.sum()


def fit_adam(errors: SubmissionErrors, blocks: Sequence[slice], seed: int, notify: Notify) -> Fit:
    """Minimise as published: Adam over logits from 0, averaging the last 50 epochs.

    Source: Bratholm et al. 2020 (arXiv 2008.05994) and its code: learning rate 0.32, 200 epochs of
    10 batches, MAE + 1e-9 in the logarithm, softmax weights.
    """
    generator = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(len(blocks)), [rows.stop - rows.start for rows in blocks])
    couplings = np.concatenate([np.arange(rows.start, rows.stop) for rows in blocks])
    order, adam, seen = np.arange(len(couplings)), _Adam(len(errors)), []
    for _ in range(EPOCHS):
        generator.shuffle(order)
        for batch in np.array_split(order, min(BATCHES, len(order))):
            rows = np.sort(batch)
            weights = softmax(adam.point)
            slope = _slope(errors, couplings[rows], kinds[rows], len(blocks), weights)
            adam.step(weights * (slope - weights @ slope))
        seen.append(adam.point)
        notify()
    return gap_at(errors, blocks, softmax(np.mean(seen[-AVERAGED:], axis=0)))


class _Adam:
    """Adam from zeros, with the usual decays: numpy's few lines save loading torch."""

    def __init__(self, size: int) -> None:
        self.point, self.mean, self.square, self.steps = *np.zeros((3, size)), 0

    def step(self, slope: Floats) -> None:
        """Take one step."""
        self.steps += 1
        self.mean = 0.9 * self.mean + 0.1 * slope
        self.square = 0.999 * self.square + 0.001 * slope**2
        mean = self.mean / (1 - 0.9**self.steps)
        deviation = np.sqrt(self.square / (1 - 0.999**self.steps))
        self.point = self.point - LEARNING_RATE * mean / (deviation + 1e-8)


def _slope(
    errors: SubmissionErrors, batch: Couplings, kinds: Couplings, types: int, weights: Floats
) -> Floats:
    """The slope (M,) of the mean over the kinds of ln(MAE + 1e-9), of a batch of couplings."""
    products, sizes = np.zeros((len(errors), types)), np.zeros(types)
    for piece, part in errors.gathered(batch):
        of_kind = np.eye(types, dtype=np.float32)[kinds[piece]]
        residuals = weights.astype(np.float32) @ part
        products += part @ (np.sign(residuals)[:, None] * of_kind)
        sizes += np.abs(residuals) @ of_kind
    counts = np.bincount(kinds, minlength=types) + FLOOR
    slope: Floats = (products / counts / (sizes / counts + FLOOR)).mean(axis=1)
    return slope
