"""Descent with steps that adapt to the losses: when they lengthen, shorten, and are taken back."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.tasks.hypergradient_descent import HypergradientDescent


class Descended:
    """A few parameters under the descent of a loss, which is told as the task tells it."""

    def __init__(self, loss: Callable[[Tensor], Tensor], *start: float, **options: float) -> None:
        self.loss = loss
        self.p = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.optimizer = HypergradientDescent([self.p], **options)

    def step(self) -> float:
        """One step; the loss before it."""
        self.optimizer.zero_grad()
        loss = self.loss(self.p)
        loss.backward()
        return float(self.optimizer.step(closure=lambda: loss.item()))

    @property
    def lipschitz(self) -> float:
        return float(self.optimizer.param_groups[0]["lipschitz"])


def bowl(p: Tensor) -> Tensor:
    return 0.5 * (torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64) * p.square()).sum()


@pytest.mark.parametrize("lr", [0.1, 1.0])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_the_first_step_has_the_length_of_the_rate_whatever_the_loss(lr, scale):
    descended = Descended(lambda p: scale * bowl(p), 3.0, -2.0, 1.0, lr=lr)
    before = descended.p.detach().clone()
    descended.step()
    moved = before - descended.p.detach()
    assert float(moved.square().mean().sqrt()) == pytest.approx(lr)
    assert float(torch.cosine_similarity(moved, before * torch.tensor([1.0, 4.0, 9.0]), 0)) > 0.9999


@given(start=st.lists(st.floats(-5, 5).filter(lambda x: abs(x) > 0.01), min_size=3, max_size=3))
@settings(max_examples=25, deadline=None)
def test_it_comes_to_a_minimum_from_anywhere(start):
    descended = Descended(bowl, *start)
    losses = [descended.step() for _ in range(150)]
    assert max(losses[-20:]) < 1e-2 * losses[0]
    assert min(losses) < 1e-4 * losses[0]


def test_a_step_that_keeps_its_promise_lengthens_the_next():
    descended = Descended(lambda p: -2.0 * p.sum(), 0.0, 0.0, growth=1.5)
    lengths = []
    for _ in range(4):
        before = descended.p[0].item()
        descended.step()
        lengths.append(descended.p[0].item() - before)
    assert lengths == pytest.approx([1.0, 1.5, 1.5**2, 1.5**3])


def test_a_step_that_lowers_the_loss_by_less_keeps_its_length():
    losses = iter([1.0, 0.6])
    descended = Descended(lambda p: p.sum() * 0 + next(losses) + p.sum() - p.sum().detach(), 0.0)
    descended.step()
    length = descended.lipschitz
    descended.step()
    assert descended.lipschitz == length


def test_a_step_that_raises_the_loss_a_little_counts_and_halves_the_next():
    losses = iter([1.0, 1.01])
    descended = Descended(lambda p: next(losses) + p.sum() - p.sum().detach(), 0.0)
    descended.step()
    descended.step()
    assert descended.p.tolist() == [-1.5]


@pytest.mark.parametrize("bad", [1.03, 50.0, math.inf, math.nan])
def test_a_step_that_raises_the_loss_by_far_is_taken_back_and_repeated_in_half(bad):
    losses = iter([1.0, bad, bad, 0.5])
    gradients = iter([1.0, 7.0, -3.0, 1.0])
    descended = Descended(
        lambda p: next(losses) + next(gradients) * (p.sum() - p.sum().detach()), 2.0
    )
    for expected in (1.0, 1.5, 1.75):
        descended.step()
        assert descended.p.tolist() == [expected]
    descended.step()  # this one is taken from where the last one led
    assert descended.p.item() == pytest.approx(1.75 - 1 / descended.lipschitz)


def test_a_loss_below_zero_is_judged_by_its_size():
    losses = iter([-10.0, -9.9, -8.5])
    descended = Descended(lambda p: next(losses) + p.sum() - p.sum().detach(), 0.0)
    descended.step()
    descended.step()
    assert descended.p.tolist() == [-1.5]
    descended.step()
    assert descended.p.tolist() == [-1.25]


def test_nothing_happens_without_a_gradient():
    p = nn.Parameter(torch.ones(2))
    optimizer = HypergradientDescent([p])
    assert optimizer.step(closure=lambda: 3.0) == 3.0
    assert p.tolist() == [1.0, 1.0]
    assert optimizer.state == {}


def test_a_gradient_of_zero_stays_where_it_is():
    descended = Descended(lambda p: (0.0 * p).sum(), 1.0)
    for _ in range(3):
        descended.step()
    assert descended.p.tolist() == [1.0]


def test_a_resumed_descent_takes_the_same_steps():
    going = Descended(bowl, 3.0, -2.0, 1.0)
    for _ in range(3):
        going.step()
    resumed = Descended(bowl, *going.p.tolist())
    resumed.optimizer.load_state_dict(going.optimizer.state_dict())
    for _ in range(6):
        assert going.step() == resumed.step()
        assert torch.equal(going.p, resumed.p)


def test_what_cannot_be_is_refused():
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="not be negative"):
        HypergradientDescent([p], lr=-1.0)
    with pytest.raises(ValueError, match="at least 1"):
        HypergradientDescent([p], growth=0.9)
    with pytest.raises(ValueError, match="no groups"):
        HypergradientDescent([{"params": [p]}, {"params": [nn.Parameter(torch.ones(1))]}])
    p.grad = torch.ones(2)
    with pytest.raises(ValueError, match="needs a closure"):
        HypergradientDescent([p]).step()
