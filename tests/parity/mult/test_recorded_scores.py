"""Scores of sentiment and emotions as the published code has computed them.

The recorded F1 of sentiment is the published variant, which is weighted by the predictions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from equipoise.tasks.multimodal_scores import emotion_scores, sentiment_scores

RECORDED = np.load(Path(__file__).parent / "metrics.npz")
SENTIMENT = {
    "correlation": 0.7927816607414128,
    "accuracy_7": 0.3575,
    "accuracy_5": 0.4725,
    "accuracy_negative_positive": 0.840625,
    "f1_negative_positive_published": 0.8406483479993359,
    "accuracy_positive_or_not": 0.775,
    "f1_positive_or_not_published": 0.7728704828423929,
}
EMOTIONS = {
    "neutral": (0.7398999999999999, 0.728),
    "happy": (0.6732557312052052, 0.66),
    "sad": (0.6467460472379465, 0.64),
    "angry": (0.6692604406929381, 0.66),
}


def test_sentiment_is_judged_as_recorded() -> None:
    found = sentiment_scores(RECORDED["senti_pred"], RECORDED["senti_true"])
    assert {name: found[name] for name in SENTIMENT} == pytest.approx(SENTIMENT, abs=1e-10)
    assert found["mae"] == pytest.approx(0.79571223, abs=1e-7)  # recorded in float32
    assert found["f1_negative_positive"] == pytest.approx(0.8406017, abs=1e-7)


def test_emotions_are_judged_as_recorded() -> None:
    chosen = RECORDED["iemocap_logits"].reshape(-1, 4, 2).argmax(axis=-1)
    labels = RECORDED["iemocap_labels"].reshape(-1, 4)
    found = emotion_scores(chosen, labels, tuple(EMOTIONS))
    for name, (f1, accuracy) in EMOTIONS.items():
        assert found[f"f1_{name}"] == pytest.approx(f1, abs=1e-10)
        assert found[f"accuracy_{name}"] == pytest.approx(accuracy, abs=1e-10)
    assert found["f1"] == pytest.approx(np.mean([f1 for f1, _ in EMOTIONS.values()]), abs=1e-10)
    assert found["accuracy"] == pytest.approx(0.672, abs=1e-10)
