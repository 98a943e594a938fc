"""Networks that learn to predict an equilibrium."""

from __future__ import annotations

import copy

import pytest
import torch

from equipoise.equilibrium import Anderson, Equilibrium, FixedPoint, JacobianFree
from equipoise.models import MDEQ
from equipoise.nn import LearnedImageStart, LearnedSequenceStart
from equipoise.nn.learned_start import start_loss


def test_an_untrained_start_is_zero_and_of_the_shapes_of_the_state() -> None:
    image = LearnedImageStart(3, (4, 6, 8), width=5)
    like = tuple(torch.zeros(2, c, 8 >> i, 8 >> i) for i, c in enumerate((4, 6, 8)))
    for part, expected in zip(image(torch.randn(2, 3, 8, 8), like), like, strict=True):
        torch.testing.assert_close(part.detach(), expected, rtol=0, atol=0)
    sequence = LearnedSequenceStart(9, 4, hidden=7)
    half = torch.zeros(2, 5, 4, dtype=torch.float64)
    assert sequence(torch.randn(2, 5, 9), half).dtype == torch.float64


def test_the_loss_is_that_of_the_prediction_alone_and_is_given_once() -> None:
    start = LearnedSequenceStart(3, 2, hidden=4)
    injection = torch.randn(5, 1, 3, requires_grad=True)
    target = torch.randn(5, 1, 2, requires_grad=True)
    start.learn(start(injection, target), target)
    loss = start.pop_loss()
    assert loss is not None
    assert loss.item() == pytest.approx(1.0)  # from zero, the whole of |z*|^2
    loss.backward()
    assert injection.grad is None
    assert target.grad is None
    assert start.state.weight.grad is not None
    assert start.pop_loss() is None
    states = [target * 1.0, target * 1.0]
    for state in states:  # a step of two forwards
        start.learn(start(injection, state), state)
    assert start.pop_loss().item() == pytest.approx(2.0)  # type: ignore[union-attr]
    start.eval().learn(start(injection, target), target)
    assert start.pop_loss() is None


def test_the_loss_is_relative_to_the_size_of_each_sample() -> None:
    z = (torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[4.0], [2.0]]))
    near = (z[0] * 0.9, z[1] * 0.9)
    assert start_loss(near, z).item() == pytest.approx(0.01)


def network(initializer: int | None) -> MDEQ:
    torch.manual_seed(3)
    layer = Equilibrium(Anderson(max_steps=5, tol=0.0), JacobianFree())
    return MDEQ(
        layer, classes=3, image_size=8, channels=[8, 8], head_channels=[2, 2], final_channels=8,
        groups=4, initializer=initializer,
    )  # fmt: skip


def test_a_network_without_it_is_the_same_and_one_with_it_answers_the_same() -> None:
    plain, learning = network(None), network(6)
    extra = {name for name in learning.state_dict() if name.startswith("initializer.")}
    assert plain.state_dict().keys() == learning.state_dict().keys() - extra
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(learning.state_dict()[name], value, rtol=0, atol=0)
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(learning.eval()(images), plain.eval()(images), rtol=0, atol=0)
    learning.train()(images)
    assert learning.initializer is not None
    assert learning.initializer.pop_loss() is not None
    learning(images)
    copied = copy.deepcopy(learning).initializer  # a loss that nobody has taken stays behind
    assert copied is not None
    assert copied.pop_loss() is None


def test_it_learns_to_save_evaluations() -> None:
    torch.manual_seed(0)
    weight = torch.linalg.qr(torch.randn(4, 4)).Q * 0.8
    layer = Equilibrium(FixedPoint(max_steps=60, tol=1e-2), JacobianFree())
    start = LearnedSequenceStart(4, 4, hidden=32)
    optimizer = torch.optim.Adam(start.parameters(), lr=0.02)
    injection, z0 = torch.randn(8, 3, 4), torch.zeros(8, 3, 4)
    spent, losses = [], []
    for _ in range(80):
        predicted = start(injection, z0)
        z = layer(lambda z, u: torch.tanh(z @ weight.T + u), predicted.detach(), injection)
        start.learn(predicted, z)
        loss = start.pop_loss()
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert layer.report is not None
        spent.append(layer.report.nfe)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1.0)
    assert losses[-1] < 0.05
    assert spent[-1] < 0.8 * spent[0]
