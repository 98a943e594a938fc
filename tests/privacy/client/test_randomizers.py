"""Integer thresholds: rounded up, so that the ratio stays at most e^epsilon."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest

from equipoise.privacy.client.randomizers import SCALE, probability_threshold


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 4.0, 8.0, 20.0, 40.0])
@pytest.mark.parametrize(("favoured", "others"), [(1, 1), (1, 63), (21, 1023)])
def test_the_threshold_is_the_least_integer_that_is_not_below(
    epsilon: float, favoured: int, others: int
) -> None:
    threshold = probability_threshold(epsilon, favoured, others)
    with localcontext() as context:
        context.prec = 80
        weight = favoured * Decimal(epsilon).exp() + others
        assert threshold * weight >= SCALE
        assert (threshold - 1) * weight < SCALE


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 8.0, 40.0])
def test_the_effective_epsilon_of_unary_encoding_is_not_larger(epsilon: float) -> None:
    threshold = probability_threshold(epsilon, 1, 1)
    with localcontext() as context:
        context.prec = 60
        effective = (Decimal(SCALE - threshold) / Decimal(threshold)).ln()
    assert effective <= Decimal(epsilon)
    assert float(effective) == pytest.approx(epsilon, abs=0.02)
