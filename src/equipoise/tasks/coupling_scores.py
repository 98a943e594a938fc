"""How well couplings are predicted: the mean over their types of ln MAE, as the competition counts.

The scores are in float64 and of all couplings of a type together, wherever they were predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.data.molecules.tables import TYPES

FLOOR = 1e-9
"""The smallest MAE of a type that counts, in Hz: a perfect prediction has -20.7232."""

YARDSTICKS = {
    "MLE-bench bronze": -1.901,
    "MLE-bench silver": -2.031,
    "MLE-bench gold": -2.875,
    "first place, single model, from": -3.06,
    "first place, single model, to": -3.07,
    "first place, median of its models": -3.22,
    "first place, its ensemble on the leaderboard": -3.240,
    "all teams, one weight each (E; fitted on half of the test set)": -3.414,
    "all teams, a weight for each type (E*; fitted on half of the test set)": -3.453,
}
"""Published scores on the couplings of the competition, the mean over types of ln MAE.

Sources: the write-up and leaderboard of Kaggle's "Predicting Molecular Properties" (2019);
Bratholm et al. 2020 (arXiv 2008.05994), whose E and E* are of the other half of the test set;
MLE-bench (arXiv 2410.07095), whose marks are of that benchmark's own split.
"""


@dataclass(frozen=True)
class TypeScore:
    """Couplings of one type: how many, their mean absolute error in Hz, and ln of it, floored."""

    count: int
    mae: float
    log_mae: float


def type_scores(
    predicted: NDArray[Any], true: NDArray[Any], kind: NDArray[np.integer]
) -> dict[str, TypeScore]:
    """The score of each type that occurs, in the order of TYPES.

    predicted, true: (N,) in Hz; kind: (N,) from 1 to 8, and 0 where nothing is to be predicted.
    """
    errors = np.abs(np.asarray(predicted, np.float64) - np.asarray(true, np.float64))
    return {
        name: type_score(int(present.sum()), float(errors[present].mean()))
        for number, name in enumerate(TYPES, start=1)
        if (present := np.asarray(kind) == number).any()
    }


def type_score(count: int, mae: float) -> TypeScore:
    """The score of a type's mean absolute error in Hz."""
    return TypeScore(count, mae, math.log(max(mae, FLOOR)))


def mean_log_mae(scores: Mapping[str, TypeScore]) -> float:
    """The mean over the types that occur, however many couplings each has; nan without any."""
    return float(np.mean([score.log_mae for score in scores.values()])) if scores else math.nan
