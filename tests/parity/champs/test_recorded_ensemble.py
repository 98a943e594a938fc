"""Scores of five submissions and of their blends as the published code has computed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from equipoise.commands.ensemble.blends import blend_scores
from equipoise.commands.ensemble.simplex_weights import fit_adam, fit_convex
from equipoise.commands.ensemble.submission_errors import SubmissionErrors
from equipoise.report.couplings import FLOOR, mean_log_mae, type_scores

RECORDED = np.load(Path(__file__).parent / "metric.npz")
TRUE, KIND, PREDICTED = RECORDED["y"], RECORDED["type_index"] + 1, RECORDED["preds"]
TYPES = ("1JHC", "1JHN", "2JHC", "2JHH", "2JHN", "3JHC", "3JHH", "3JHN")
SINGLES = [
    (-2.477767500304589, [-0.5220147396984024, -1.695222564702722, -2.7488080125617786,
     -2.575698667985577, -2.766609087463746, -2.963366733122792, -2.7098390177248906,
     -3.8405811791768]),
    (-2.063140637575981, [-0.1228023850959792, -1.2762965526555585, -2.3609131811631068,
     -2.2477886911314524, -2.2981454913156387, -2.4698258685706396, -2.4159430924061582,
     -3.313409838269316]),
    (-1.630202485420292, [0.3810426861781151, -0.8124661428942825, -1.9367471260166689,
     -1.840268347453427, -1.8401456003796068, -2.187416751984116, -1.8872984893302494,
     -2.9183201114820996]),
    (-1.1820926635083588, [0.744880983746403, -0.33773027910731535, -1.4732796313360617,
     -1.3568554049248807, -1.4476309850301519, -1.6138507067991115, -1.4581630877709095,
     -2.5141121968448426]),
    (-0.2674266161887796, [1.7948623468046452, 0.5434591867686857, -0.6026989372815392,
     -0.48441290348646115, -0.5172278982182094, -0.6480187038996642, -0.6195494442902814,
     -1.6058265759074124]),
]  # fmt: skip
BLENDS = {
    "mean": (-1.7312429366525741, [0.2804288342109311, -0.8637745110252597, -2.1090334123188303,
     -1.92808149950465, -1.957014162421935, -2.145889723390297, -2.0459181762456415,
     -3.08066084252491]),
    "median": (-2.2975495909526233, [-0.34516817718534015, -1.4417225908079376,
     -2.6568810213481266, -2.507726794236676, -2.51006894744205, -2.731341726221401,
     -2.584815755734283, -3.602671714645172]),
    "middle 3 of 5": (-2.22820459471874, [-0.23716698280310963, -1.384384422201859,
     -2.597969058352037, -2.428139079643495, -2.443735277845128, -2.6769892083974804,
     -2.4940765042067325, -3.5631762243000766]),
    "softmax": (-2.6648411809569073, [-0.7116858641959958, -1.8311625991931897,
     -3.022006699846028, -2.772093996181358, -2.958432654047054, -3.144772084193739,
     -2.9085911532722246, -3.9699843967256716]),
}  # fmt: skip
SOFTMAX = np.array(
    [0.6184330409989087, 0.2359320969860477, 0.10296662265356828, 0.03744198996218167,
     0.005226249399293696]
)  # fmt: skip
IN_SAMPLE = -2.6648394784822353

ORDER = np.argsort(KIND, kind="stable")
ENDS = np.searchsorted(KIND[ORDER], np.arange(1, 10)).tolist()
BLOCKS = dict(zip(TYPES, map(slice, ENDS, ENDS[1:]), strict=True))
ERRORS = SubmissionErrors.of_array((PREDICTED - TRUE)[:, ORDER])


@pytest.mark.parametrize("number", range(5))
def test_submissions_are_judged_as_recorded(number: int) -> None:
    total, per_type = SINGLES[number]
    found = type_scores(PREDICTED[number], TRUE, KIND, TYPES)
    assert tuple(found) == TYPES
    assert [score.log_mae for score in found.values()] == pytest.approx(per_type, abs=1e-12)
    assert [score.count for score in found.values()] == np.bincount(KIND)[1:].tolist()
    assert mean_log_mae(found) == pytest.approx(total, abs=1e-12)


def test_a_perfect_submission_has_the_recorded_floor() -> None:
    found = type_scores(TRUE, TRUE, KIND, TYPES)
    assert mean_log_mae(found) == pytest.approx(-20.72326583694641, abs=1e-12)
    assert found["1JHC"].mae == 0 < FLOOR


@pytest.mark.parametrize(
    ("name", "blend"),
    [
        ("mean", lambda _, rows: ERRORS.blended(np.full(5, 0.2), rows)),
        ("median", lambda _, rows: ERRORS.median(rows)),
        ("middle 3 of 5", lambda _, rows: ERRORS.middle_mean(3, rows)),
        ("softmax", lambda _, rows: ERRORS.blended(SOFTMAX, rows)),
    ],
)
def test_blends_are_judged_as_recorded(
    name: str, blend: Callable[[str, slice], np.ndarray]
) -> None:
    total, per_type = BLENDS[name]
    found = blend_scores(blend, BLOCKS)
    assert [score.log_mae for score in found.values()] == pytest.approx(per_type, abs=1e-12)
    assert mean_log_mae(found) == pytest.approx(total, abs=1e-12)


def test_adam_reaches_the_recorded_score_and_newton_at_least_that() -> None:
    blocks = list(BLOCKS.values())
    adam = fit_adam(ERRORS, blocks, 42, lambda: None)
    assert adam.objective == pytest.approx(IN_SAMPLE, abs=1e-3)
    assert adam.weights == pytest.approx(SOFTMAX, abs=0.02)
    newton = fit_convex(ERRORS, blocks, lambda: None)
    assert newton.objective < min(IN_SAMPLE, adam.objective)
    assert newton.gap < 1e-5 < adam.gap
