"""The scores are those of scikit-learn and numpy, and scores of nothing are nan."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score

from equipoise.tasks.multimodal_scores import (
    SENTIMENT_SCORES,
    Floats,
    correlation,
    emotion_score_names,
    emotion_scores,
    sentiment_scores,
)

EMOTIONS = ("neutral", "happy")
# many ties: halves, zeros and values beyond the scale
SENTIMENT = st.sampled_from([n / 2 for n in range(-9, 10)]) | st.floats(-4, 4)
PAIRS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(arrays(np.float64, n, elements=SENTIMENT), 
                        arrays(np.float64, n, elements=SENTIMENT))
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_warning() -> None:
    warnings.simplefilter("error")


def by_scikit_learn(name: str, predicted: Floats, true: Floats) -> dict[str, float]:
    """Accuracy, F1 and the published F1 of two classes."""
    weighted = {"average": "weighted", "zero_division": 0}
    return {
        f"accuracy_{name}": accuracy_score(true, predicted),
        f"f1_{name}": f1_score(true, predicted, **weighted),
        f"f1_{name}_published": f1_score(predicted, true, **weighted),
    }


@given(PAIRS)
def test_two_classes_of_sentiment_are_those_of_scikit_learn(pair: tuple[Floats, Floats]) -> None:
    predicted, true = pair
    found = sentiment_scores(predicted, true)
    expected = {
        **by_scikit_learn("negative_nonnegative", predicted >= 0, true >= 0),
        **by_scikit_learn("positive_or_not", predicted > 0, true > 0),
    }
    decided = true != 0
    if decided.any():
        two = predicted[decided] > 0, true[decided] > 0
        expected |= by_scikit_learn("negative_positive", *two)
    del expected["f1_negative_nonnegative_published"]
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert tuple(found) == SENTIMENT_SCORES


@given(PAIRS)
def test_the_mean_error_and_the_rounded_classes_are_those_of_numpy(
    pair: tuple[Floats, Floats],
) -> None:
    predicted, true = pair
    found = sentiment_scores(predicted, true)
    assert found["mae"] == pytest.approx(np.abs(predicted - true).mean())
    for classes, greatest in ((7, 3), (5, 2)):
        clipped = np.clip(predicted, -greatest, greatest), np.clip(true, -greatest, greatest)
        same = np.round(clipped[0]) == np.round(clipped[1])
        assert found[f"accuracy_{classes}"] == pytest.approx(same.mean())


def test_a_half_is_rounded_to_the_even_number() -> None:
    predicted = np.array([0.5, 1.5, 2.5, -0.5, 4.0])
    assert sentiment_scores(predicted, np.array([0.0, 2, 2, 0, 3]))["accuracy_7"] == 1
    assert sentiment_scores(predicted, np.array([1.0, 1, 3, -1, 3]))["accuracy_7"] == 0.2


def test_zeros_are_left_out_kept_or_not_negative_as_the_name_says() -> None:
    predicted, true = np.array([-1.0, 1, 0, 0, 1]), np.array([-1.0, 1, 0, 0, -1])
    found = sentiment_scores(predicted, true)
    assert found["accuracy_negative_positive"] == pytest.approx(2 / 3)
    assert found["accuracy_positive_or_not"] == found["accuracy_negative_nonnegative"] == 0.8
    found = sentiment_scores(predicted - 1e-9, true)
    assert found["accuracy_positive_or_not"] == 0.8
    assert found["accuracy_negative_nonnegative"] == 0.4


@pytest.mark.parametrize("order", [1, -1])
def test_constant_values_correlate_with_nothing(order: int) -> None:
    constant, varied = np.full(7, 0.1, np.float32), np.linspace(-1, 1, 7)
    found = sentiment_scores(*(constant, varied)[::order])
    assert math.isnan(found.pop("correlation"))
    assert not any(map(math.isnan, found.values()))


def test_predictions_that_are_not_finite_spill_no_warning() -> None:
    found = sentiment_scores(np.array([np.inf, np.nan, 1]), np.array([1.0, 2, -1]))
    assert math.isnan(found["correlation"])
    assert math.isnan(found["mae"])
    assert found["accuracy_negative_positive"] == pytest.approx(1 / 3)


@given(PAIRS)
def test_the_correlation_is_that_of_numpy_whatever_the_scale(pair: tuple[Floats, Floats]) -> None:
    predicted, true = (np.round(values, 3) for values in pair)
    found = correlation(predicted, true)
    if min(np.ptp(predicted), np.ptp(true)) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(np.corrcoef(predicted, true)[0, 1], abs=1e-9)
        assert correlation(1e-200 * predicted, true) == pytest.approx(found, abs=1e-9)


def test_without_a_sample_that_is_not_zero_only_the_other_scores_are_known() -> None:
    found = sentiment_scores(np.array([0.5, -0.5]), np.zeros(2))
    unknown = {name for name, score in found.items() if math.isnan(score)}
    kinds = ("accuracy_negative_positive", "f1_negative_positive", "f1_negative_positive_published")
    assert unknown == {"correlation", *kinds}


def test_a_single_class_has_the_f1_of_that_class() -> None:
    found = sentiment_scores(np.array([1.0, 2, -1]), np.array([1.0, 2, 3]))
    assert found["f1_negative_positive"] == pytest.approx(2 * 2 / (2 + 3))
    assert found["f1_negative_positive_published"] == pytest.approx(2 / 3 * 4 / 5)


def test_the_scores_of_nothing_are_nan() -> None:
    empty = np.array([])
    assert all(map(math.isnan, sentiment_scores(empty, empty).values()))


@given(st.integers(1, 20).flatmap(
    lambda n: st.tuples(arrays(np.int64, (n, 2), elements=st.integers(0, 1)),
                        arrays(np.int64, (n, 2), elements=st.integers(0, 1)))
))  # fmt: skip
def test_each_emotion_is_judged_as_by_scikit_learn(pair: tuple[Floats, Floats]) -> None:
    predicted, true = pair
    found = emotion_scores(predicted, true, EMOTIONS)
    for place, name in enumerate(EMOTIONS):
        expected = by_scikit_learn(name, predicted[:, place], true[:, place])
        assert found[f"accuracy_{name}"] == pytest.approx(expected[f"accuracy_{name}"])
        assert found[f"f1_{name}"] == pytest.approx(expected[f"f1_{name}"])
    for kind in ("accuracy", "f1"):
        assert found[kind] == pytest.approx(np.mean([found[f"{kind}_{n}"] for n in EMOTIONS]))
    assert tuple(found) == emotion_score_names(EMOTIONS)
