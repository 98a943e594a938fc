"""The jitter of the budget."""

from __future__ import annotations

import pytest

from equipoise.equilibrium.budget_jitter import BudgetJitter


def test_every_number_up_to_the_width_is_as_likely() -> None:
    jitter = BudgetJitter(4)
    drawn = [jitter.draw() for _ in range(2000)]
    counts = [drawn.count(number) for number in range(5)]
    assert sum(counts) == 2000
    assert sum((count - 400) ** 2 / 400 for count in counts) < 18.5  # chi squared, p = 0.001


def test_equal_seeds_agree_and_others_do_not() -> None:
    def draws(seed: int) -> list[int]:
        jitter = BudgetJitter(9, seed)
        return [jitter.draw() for _ in range(20)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_a_negative_width_is_refused() -> None:
    with pytest.raises(ValueError, match="jitter"):
        BudgetJitter(-1)
