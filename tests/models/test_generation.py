"""Token by token is the same as reading the whole text anew, at the cost of one position."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from equipoise.equilibrium import Broyden, Equilibrium, FixedPoint, Phantom, Unrolled
from equipoise.models import DEQTransformer
from equipoise.models.generation import Generator, Sampling, nucleus, usable_device
from tests.tasks.recurrent import Recurrent

GREEDY = Sampling(greedy=True)


class Output(NamedTuple):
    hidden: Tensor
    memory: tuple[Tensor, ...]


class Steady(nn.Module):
    """z_t = tanh(W z_t + token_t + the mean of the remembered tokens), by an equilibrium layer."""

    def __init__(self, equilibrium: Equilibrium) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 5)
        self.weight = nn.Parameter(0.3 * torch.randn(5, 5))
        self.decoder = nn.Linear(5, 7)
        self.equilibrium = equilibrium
        self.memory_length = 0
        self.lengths: list[tuple[int, int]] = []

    def forward(self, tokens: Tensor, memory: tuple[Tensor, ...] | None = None) -> Output:
        past = torch.zeros(1, 0, dtype=torch.long) if memory is None else memory[0]
        self.lengths.append((past.shape[1], tokens.shape[1]))
        whole = torch.cat([past, tokens], dim=1)
        sums = self.embedding(whole).cumsum(dim=1)
        means = sums / torch.arange(1, whole.shape[1] + 1).unsqueeze(-1)
        injection = means[:, past.shape[1] :]
        z = self.equilibrium(
            lambda z, u: torch.tanh(z @ self.weight + u), torch.zeros_like(injection), injection
        )
        return Output(z, (whole[:, max(whole.shape[1] - self.memory_length, 0) :],))

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        return self.decoder(hidden).log_softmax(dim=-1)


def steady() -> Steady:
    return Steady(Equilibrium(FixedPoint(max_steps=200, tol=1e-6), Phantom()))


def test_each_token_is_that_of_the_whole_text_read_anew() -> None:
    for model in (Recurrent(7), steady()):
        generator = Generator(model, GREEDY, context=100, device="cpu")
        text = [1, 2, 3, *generator.continuation([1, 2, 3], 20)]
        for place in range(3, 23):
            output = model(torch.tensor([text[:place]]), None)
            assert text[place] == int(model.log_probabilities(output.hidden[0, -1]).argmax())


def test_the_transformers_remembered_equilibria_are_those_of_the_whole_text() -> None:
    layer = Equilibrium(Broyden(max_steps=200, tol=1e-10, memory=200), Phantom())
    model = DEQTransformer(  # weights so small that every start leads to the same equilibrium
        layer, vocabulary=7, width=16, heads=2, inner_width=32, memory_length=4, initial_std=0.01
    ).double()
    generator = Generator(model, Sampling(seed=1), context=40, device="cpu")
    text = [1, 2, 3, *generator.continuation([1, 2, 3], 30)]
    with torch.no_grad():
        whole = model.log_probabilities(model(torch.tensor([text]), None).hidden[0])
        start, memory = layer.start, None
        layer.start = None
        for place, token in enumerate(text):
            output = model(torch.tensor([[token]]), memory)
            memory = output.memory
            step = model.log_probabilities(output.hidden[0, -1])
            torch.testing.assert_close(step, whole[place], rtol=0, atol=1e-6)
    assert start is generator.starts[0]


def test_a_step_reads_one_token_and_sees_no_more_than_the_context() -> None:
    model = steady()
    list(Generator(model, GREEDY, context=4, device="cpu").continuation([1] * 10, 6))
    assert model.lengths == [(0, 4), (4, 4), (4, 2), *[(4, 1)] * 5]


def test_a_new_position_starts_at_the_equilibrium_of_the_one_before() -> None:
    starts: list[Tensor] = []
    ends: list[Tensor] = []

    class Watched(FixedPoint):
        def solve(self, f, z0, *inputs):
            starts.append(z0)
            solution = super().solve(f, z0, *inputs)
            ends.append(solution.z)
            return solution

    model = Steady(Equilibrium(Watched(max_steps=50, tol=1e-5), Phantom()))
    generator = Generator(model, GREEDY, context=9, device="cpu")
    list(generator.continuation([1, 2], 5))
    assert [bool(start.any()) for start in starts] == [False, False, True, True, True]
    for start, end in zip(starts[2:], ends[1:], strict=False):
        torch.testing.assert_close(start, end, rtol=1e-4, atol=1e-4)


def test_a_warm_start_saves_evaluations() -> None:
    evaluations = []
    for warm in (True, False):
        model = steady()
        generator = Generator(model, GREEDY, context=20, device="cpu")
        if not warm:
            model.equilibrium.start = None
        list(generator.continuation([1, 2, 3], 40))
        evaluations.append(generator.evaluations)
    assert evaluations[0] < 0.9 * evaluations[1]


def test_an_iteration_of_an_estimators_own_starts_where_the_model_says() -> None:
    model = Steady(Equilibrium(FixedPoint(), Unrolled(steps=3)))
    Generator(model, GREEDY, context=9, device="cpu")
    assert model.equilibrium.start is None


def test_the_nucleus_holds_the_fewest_tokens_that_reach_top_p() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.15, 0.25])
    assert nucleus(probabilities, 0.6).tolist() == pytest.approx([0, 0.5, 0, 0.25])
    assert nucleus(probabilities, 0.5).tolist() == pytest.approx([0, 0.5, 0, 0])
    assert nucleus(probabilities, 1.0).tolist() == pytest.approx(probabilities.tolist())


def test_draws_follow_seed_temperature_and_nucleus() -> None:
    scores = torch.tensor([0.7, 0.2, 0.1]).log()

    def draws(sampling: Sampling) -> list[int]:
        generator = torch.Generator().manual_seed(sampling.seed)
        return [sampling.choose(scores, generator) for _ in range(400)]

    assert draws(Sampling(seed=3)) == draws(Sampling(seed=3)) != draws(Sampling(seed=4))
    assert draws(Sampling(top_p=1.0)).count(0) / 400 == pytest.approx(0.7, abs=0.08)
    assert draws(Sampling(temperature=0.2, top_p=1.0)).count(0) > 390
    assert set(draws(Sampling(top_p=0.8))) == {0, 1}
    assert set(draws(Sampling(greedy=True))) == {0}


def test_a_device_that_there_is_not_is_refused() -> None:
    for name in ("gpu7", "meta"):
        with pytest.raises(ValueError, match=f"there is no device {name} on this machine"):
            usable_device(name)
