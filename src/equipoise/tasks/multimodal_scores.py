"""Scores of predicted sentiment and emotions over a whole split, as the literature defines them.

The scores are over the samples of all processes together, in float64. Undefined scores are nan: a
correlation with constant values, and any score over no samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from equipoise.equilibrium.processes import from_all_processes

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Rows = tuple[Tensor, Tensor, Tensor]
"""Index (B,), outputs (B, O) and labels (B,) or (B, E) of a batch."""

SENTIMENT_SCORES = (
    "mae",
    "correlation",
    "accuracy_7",
    "accuracy_5",
    "accuracy_negative_positive",
    "f1_negative_positive",
    "f1_negative_positive_published",
    "accuracy_negative_nonnegative",
    "f1_negative_nonnegative",
    "accuracy_positive_or_not",
    "f1_positive_or_not",
    "f1_positive_or_not_published",
)


class Split(NamedTuple):
    """Outputs (N, O) and labels (N,) or (N, E) of a whole split, in the order of the index."""

    outputs: Floats
    label: Floats


def split_of_all_processes(seen: list[Rows]) -> Split:
    """Outputs and labels of every process in the order of the index, each sample once."""
    rows = [[part.detach().double().cpu().numpy() for part in batch] for batch in seen]
    mine: Any = tuple(np.concatenate(parts) for parts in zip(*rows, strict=True))
    index, outputs, label = (
        np.concatenate(parts) for parts in zip(*from_all_processes(mine), strict=True)
    )
    _, first = np.unique(index, return_index=True)
    return Split(outputs[first], label[first])


def sentiment_scores(predicted: Floats, true: Floats) -> dict[str, float]:
    """The scores of predicted (N,) and true (N,) sentiment from -3 to 3, by name.

    mae; correlation (Pearson's); accuracy_7 and accuracy_5, after predicted and true are clipped
    to ±3 and ±2 and rounded, halves to even; accuracy and weighted F1 of two classes, which are:

    - negative_positive: above 0 or not, without the samples whose truth is 0;
    - negative_nonnegative: below 0 or not, over all samples, as in the later literature;
    - positive_or_not: above 0 or not, over all samples.

    F1 is weighted by how often each class is true. The `published` variants weight it by how often
    each is predicted, because the published code swaps the two arguments.

    Source: Tsai et al. 2019 (arXiv 1906.00295), section 4.2 and its code.
    """
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    decided = true != 0
    positive = true > 0, predicted > 0
    return {
        "mae": _mean(np.abs(predicted - true)),
        "correlation": correlation(predicted, true),
        "accuracy_7": _mean(_rounded(predicted, 3) == _rounded(true, 3)),
        "accuracy_5": _mean(_rounded(predicted, 2) == _rounded(true, 2)),
        **_two_classes("negative_positive", predicted[decided] > 0, true[decided] > 0),
        **_two_classes("negative_nonnegative", predicted >= 0, true >= 0, published=False),
        **_two_classes("positive_or_not", positive[1], positive[0]),
    }


def emotion_scores(
    predicted: NDArray[np.integer], true: NDArray[np.integer], emotions: Sequence[str]
) -> dict[str, float]:
    """Accuracy and weighted F1 of each emotion, and their means.

    predicted, true: (N, E), 1 where an emotion is present and 0 where it is not.
    """
    columns = {
        name: (predicted[:, place] > 0, true[:, place] > 0) for place, name in enumerate(emotions)
    }
    accuracies = {f"accuracy_{name}": _mean(p == t) for name, (p, t) in columns.items()}
    f1 = {f"f1_{name}": weighted_f1(p, t) for name, (p, t) in columns.items()}
    means = {"accuracy": _mean([*accuracies.values()]), "f1": _mean([*f1.values()])}
    return {**means, **accuracies, **f1}


def emotion_score_names(emotions: Sequence[str]) -> tuple[str, ...]:
    """The names of the scores that `emotion_scores` returns."""
    empty = np.zeros((0, len(emotions)), np.int64)
    return tuple(emotion_scores(empty, empty, emotions))


def correlation(one: Floats, other: Floats) -> float:
    """Pearson's correlation of (N,) and (N,); nan where either is constant or not finite."""
    if not len(one) or not np.isfinite([one, other]).all():
        return float("nan")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(_centred(one), _centred(other))[0, 1])


def _centred(values: Floats) -> Floats:
    """The deviations from the mean, scaled to at most 1, so that their squares do not underflow."""
    deviations: Floats = values - values.mean()
    return deviations / np.abs(deviations).max()


def weighted_f1(predicted: Booleans, true: Booleans) -> float:
    """The mean F1 of both classes of (N,), weighted by how often each is true; nan if N is 0."""
    if not len(true):
        return float("nan")
    kinds = (False, True)
    return sum(_mean(true == kind) * _f1(predicted == kind, true == kind) for kind in kinds)


def _f1(predicted: Booleans, true: Booleans) -> float:
    """2 hits / (predicted + true); 0 where a class is neither predicted nor true."""
    hits, chosen = int(np.sum(predicted & true)), int(np.sum(predicted)) + int(np.sum(true))
    return 2 * hits / max(1, chosen)


def _two_classes(
    name: str, predicted: Booleans, true: Booleans, *, published: bool = True
) -> dict[str, float]:
    scores = {
        f"accuracy_{name}": _mean(predicted == true),
        f"f1_{name}": weighted_f1(predicted, true),
    }
    if published:
        scores[f"f1_{name}_published"] = weighted_f1(predicted=true, true=predicted)
    return scores


def _rounded(values: Floats, greatest: int) -> Floats:
    return values.clip(-greatest, greatest).round()


def _mean(values: Sequence[float] | NDArray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
