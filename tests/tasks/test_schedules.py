"""The rates of each schedule, step by step."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from equipoise.tasks.schedules import (
    Constant,
    Cosine,
    InverseSquareRoot,
    OneCycle,
    Plateau,
    Schedule,
    Step,
)


def rates(schedule: Schedule, steps: int, rate: float = 2.0) -> list[float]:
    """The rate of each of the first `steps` steps of a run of so many."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], rate)
    scheduler = schedule(optimizer, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_a_constant_rate_stays_after_its_warm_up() -> None:
    assert rates(Constant(warmup=0.4), 10) == pytest.approx([0.5, 1.0, 1.5, *[2.0] * 7])


def test_a_cosine_falls_from_the_rate_to_the_minimum() -> None:
    found = rates(Cosine(warmup=0.2, minimum=0.5), 10)
    expected = [0.5 + 1.5 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert found == pytest.approx([1.0, 2.0, *expected])


def test_a_cosine_may_be_counted_from_the_first_step_as_the_published_one_of_couplings() -> None:
    """Where it is torch's in closed form, the steps of the warm-up included."""
    found = rates(Cosine(warmup=0.3, minimum=0.5, from_first_step=True), 20)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 2.0)
    published = CosineAnnealingLR(optimizer, 20, eta_min=0.5)
    expected = []
    for step in range(20):
        expected.append(optimizer.param_groups[0]["lr"] if step >= 6 else 2.0 * (step + 1) / 6)
        optimizer.step()
        published.step()
    assert found == pytest.approx(expected)
    assert found[6] < 1.8 < found[5]


@given(st.integers(1, 60), st.floats(0, 1))
def test_the_inverse_square_root_is_the_published_formula(steps: int, warmup: float) -> None:
    found = rates(InverseSquareRoot(warmup), steps)
    start = max(1.0, warmup * steps)
    expected = [2 * min(step / start, math.sqrt(start / step)) for step in range(1, steps + 1)]
    assert found == pytest.approx(expected)
    assert max(found) <= 2.0


def test_the_published_rates_differ_by_a_constant_alone() -> None:
    found = rates(InverseSquareRoot(warmup=0.04), 1000)  # 40 steps, as 4,000 of 100,000
    published = [512**-0.5 * min(step**-0.5, step * 40**-1.5) for step in range(1, 1001)]
    ratios = [one / other for one, other in zip(found, published, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * 1000)
    assert max(found) == found[39] == pytest.approx(2.0)


def test_without_a_warm_up_the_first_rate_is_the_greatest() -> None:
    assert rates(InverseSquareRoot(warmup=0.0), 4) == pytest.approx([2, 2**0.5, (4 / 3) ** 0.5, 1])


@given(st.integers(20, 60), st.floats(0.1, 0.9))
def test_one_cycle_is_that_of_torch(steps: int, warmup: float) -> None:
    optimizer = optimizer_of(1.0)
    reference = OneCycleLR(optimizer, 2.0, steps, pct_start=warmup, cycle_momentum=False)
    expected = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        optimizer.step()
        reference.step()
        expected.append(optimizer.param_groups[0]["lr"])
    factors = OneCycle(warmup, first_factor=1 / 25, final_factor=1 / 25e4)
    assert rates(factors, steps) == pytest.approx(expected)


def test_one_cycle_has_its_ends_whatever_its_warm_up() -> None:
    for warmup in (0.0, 0.3, 1.0):
        found = rates(OneCycle(warmup, first_factor=0.5, final_factor=0.25), 10)
        assert max(found) == 2.0
        assert found[0] == (2.0 if warmup == 0 else 1.0)
        assert found[-1] == (2.0 if warmup == 1 else 0.5)


def test_steps_fall_at_fractions_of_the_run_behind_a_warm_up() -> None:
    found = rates(Step(warmup=0.2, milestones=(0.5, 0.8), factor=0.5), 10)
    assert found == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5])
    assert rates(Step(milestones=()), 3) == [2.0] * 3


def test_a_plateau_judges_no_validation_of_its_warm_up() -> None:
    optimizer = optimizer_of(1.0)
    scheduler = Plateau("val/loss", factor=0.5, patience=0, warmup=0.4)(optimizer, 10)
    found = []
    for step in range(10):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
        scheduler.step(float(step))  # type: ignore[arg-type]
    # the first value that counts is the best; each later one halves the rate
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125])


def test_a_plateau_of_a_revision_without_a_warm_up_goes_on_at_its_rate() -> None:
    optimizer = optimizer_of(1.0)
    scheduler = Plateau("val/loss", patience=0)(optimizer, 10)
    for _ in range(2):
        scheduler.step(1.0)  # type: ignore[arg-type]
    state = scheduler.state_dict()
    for key in ("reached", "taken", "length"):
        del state[key]
    resumed = Plateau("val/loss", patience=0)(optimizer, 10)
    optimizer.param_groups[0]["lr"] = 0.1  # Lightning restores the optimiser first
    resumed.load_state_dict(state)
    resumed.step()
    assert optimizer.param_groups[0]["lr"] == 0.1


def optimizer_of(rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], rate)


@given(
    st.lists(st.floats(0.1, 3) | st.just(math.nan), max_size=30),
    st.integers(0, 3),
    st.sampled_from(("min", "max")),
    st.integers(0, 30),
)
def test_a_plateau_is_that_of_torch_whatever_steps_and_stops_there_are(
    values: list[float], patience: int, mode: Literal["min", "max"], stop: int
) -> None:
    published, ours = optimizer_of(2.0), optimizer_of(2.0)
    expected = ReduceLROnPlateau(published, mode, patience=patience)
    schedule = Plateau("val/loss", mode, patience=patience)
    scheduler = schedule(ours, 100)
    for number, value in enumerate(values):
        if number == stop:
            state = scheduler.state_dict()
            scheduler = schedule(ours, 100)
            scheduler.load_state_dict(state)
        ours.step()
        scheduler.step()
        expected.step(value)
        scheduler.step(value)  # type: ignore[arg-type]
        assert ours.param_groups[0]["lr"] == published.param_groups[0]["lr"]


def test_a_plateau_falls_after_more_than_the_patience() -> None:
    optimizer = optimizer_of(1.0)
    scheduler = Plateau("val/loss", factor=0.5, patience=2)(optimizer, 1)
    found = []
    for value in (3, 2, 2, 2, 2, 2, 2, 1):
        scheduler.step(value)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]


@given(st.floats(1e-4, 1), st.floats(0, 0.1), st.floats(0, 1))
def test_a_cosine_ends_at_the_minimum_or_at_a_part_of_each_rate(
    rate: float, minimum: float, factor: float
) -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (rate, 2 * rate)]
    scheduler = Cosine(minimum=minimum, final_factor=factor)(torch.optim.SGD(groups), 7)
    for _ in range(7):
        scheduler.optimizer.step()
        scheduler.step()
    expected = [max(min(minimum, lr), factor * lr) for lr in (rate, 2 * rate)]
    assert scheduler.get_last_lr() == pytest.approx(expected)
