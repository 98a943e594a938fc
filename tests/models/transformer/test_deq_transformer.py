"""The equilibrium transformer: fixed point, memory, gradient, and a spectral radius above 1."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn

from equipoise.equilibrium import (
    Anderson,
    Broyden,
    Equilibrium,
    Exact,
    FixedPoint,
    JacobianFree,
    JacobianRegularizer,
    Phantom,
    Solver,
    spectral_radius,
)
from equipoise.models import DEQTransformer
from equipoise.models.transformer.deq_transformer import Segment

TIGHT = Broyden(max_steps=150, tol=1e-12, memory=100, patience=150)


def model(gradient: object = None, **changes: object) -> DEQTransformer:
    torch.manual_seed(0)
    shape = {
        "width": 16, "heads": 2, "inner_width": 24, "memory_length": 8, "vocabulary": 30,
        "initial_std": 0.01,
    }  # fmt: skip
    layer = Equilibrium(TIGHT, cast(Exact, gradient or Exact(TIGHT)))
    network = DEQTransformer(layer, **cast(dict, {**shape, **changes})).double()
    # With the first weights, meant for the unrolled phase, f has no stable fixed point.
    with torch.no_grad():
        network.embedding.tables[0].mul_(20)
        network.injection.weight.mul_(60)
    return network


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(30, (2, 6), generator=torch.Generator().manual_seed(seed))


def test_the_hidden_states_are_a_fixed_point() -> None:
    network = model().eval()
    memory = network(tokens(1)).memory
    z = network(tokens(), memory).hidden
    segment = network.segment(tokens(), memory)
    torch.testing.assert_close(segment.f(z, *segment.inputs), z, rtol=0, atol=1e-10)


def test_the_memory_grows_up_to_its_length_and_holds_states_and_injections() -> None:
    network = model().eval()
    first = network(tokens(1))
    assert [part.shape for part in first.memory] == [(2, 6, 16), (2, 6, 48)]
    second = network(tokens(), first.memory)
    assert [part.shape for part in second.memory] == [(2, 8, 16), (2, 8, 48)]
    torch.testing.assert_close(second.memory[0][:, 2:], second.hidden)
    torch.testing.assert_close(second.memory[0][:, :2], first.hidden[:, 4:])


def test_segments_in_turn_are_one_long_segment() -> None:
    """Memory passes no gradient, but the states are the same: f is causal."""
    network = model().eval()
    long = torch.cat((tokens(1), tokens(2)), dim=1)
    whole = network(long).hidden
    first = network(long[:, :6])
    second = network(long[:, 6:], first.memory)
    torch.testing.assert_close(
        torch.cat((first.hidden, second.hidden), 1), whole, rtol=0, atol=1e-9
    )


def test_one_token_at_a_time_is_the_same_too() -> None:
    network = model(memory_length=20).eval()
    whole = network(tokens()).hidden
    memory, states = None, []
    for token in tokens().split(1, dim=1):
        output = network(token, memory)
        memory = output.memory
        states.append(output.hidden)
    torch.testing.assert_close(torch.cat(states, dim=1), whole, rtol=0, atol=1e-9)


def test_the_exact_gradient_is_that_of_finite_differences() -> None:
    network = model()
    memory = network(tokens(1)).memory

    def loss() -> torch.Tensor:
        return network.token_losses(network(tokens(), memory).hidden, tokens(3)).sum()

    loss().backward()
    for parameter in (network.embedding.tables[0], network.cell.attention.position_bias):
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * 1e-5)
                values.append(loss())
                parameter.add_(direction, alpha=-sign * 1e-5)
        slope = (values[0] - values[1]) / 2e-5
        torch.testing.assert_close((parameter.grad * direction).sum(), slope, rtol=1e-5, atol=1e-8)


def test_masks_stay_the_same_from_the_solve_to_the_backward() -> None:
    network = model(dropout=0.3, attention_dropout=0.3)
    hidden = network(tokens()).hidden
    assert network.equilibrium.report.converged.all()
    hidden.sum().backward()
    assert network.equilibrium.report.backward.converged.all()


def test_the_regulariser_of_the_jacobian_reaches_the_parameters() -> None:
    network = model(Phantom(), norm="published_pre")
    network.equilibrium.regularizer = JacobianRegularizer()
    network(tokens())
    network.equilibrium.pop_penalty().backward()
    assert network.cell.attention.query_key_value.weight.direction.grad.abs().sum() > 0


def expanding() -> tuple[DEQTransformer, Segment]:
    """A segment behind a memory, of a layer whose weights are scaled up."""
    torch.manual_seed(10)
    layer = Equilibrium(Broyden(), JacobianFree())
    network = DEQTransformer(
        layer, vocabulary=30, width=16, heads=2, inner_width=32, memory_length=6,
        initial_std=0.01,
    ).double().eval()  # fmt: skip
    with torch.no_grad():
        for weight in network.cell.modules():
            if hasattr(weight, "length"):
                cast(nn.Parameter, weight.length).mul_(2.2)
        network.embedding.tables[0].mul_(30)
        network.injection.weight.mul_(20)
        drawn = tokens(10)
        segment = network.segment(drawn.flip(1), network(drawn).memory)
    return network, segment


def solved_by(solver: Solver, segment: Segment) -> tuple[torch.Tensor, Equilibrium]:
    layer = Equilibrium(solver, JacobianFree())
    with torch.no_grad():
        z = layer(segment.f, segment.z0, *segment.inputs)
    return z, layer


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
def test_a_spectral_radius_above_one_needs_broyden_and_iteration_says_so() -> None:
    _, segment = expanding()
    budget = {"max_steps": 120, "tol": 1e-6, "patience": 120}
    z, by_broyden = solved_by(Broyden(memory=60, **budget), segment)
    radius = spectral_radius(segment.f, z, *segment.inputs)
    worst = int(radius.argmax())
    assert 1.02 < radius[worst] < 1.2
    assert by_broyden.report.converged.all()
    _, by_iteration = solved_by(FixedPoint(**budget), segment)
    assert not by_iteration.report.converged[worst]
    assert by_iteration.report.residual[worst] > 1e-3


def test_the_published_size_has_the_published_parameters() -> None:
    with torch.device("meta"):
        layer = Equilibrium(Anderson(), Phantom())
        network = DEQTransformer(layer, vocabulary=267735, size="wikitext103")
    distinct = sum(p.numel() for p in network.parameters())
    assert round(distinct / 1e6, 2) == 97.69
    assert round(sum(p.numel() for p in network.cell.parameters()) / 1e6, 2) == 69.75
    assert round(sum(p.numel() for p in network.injection.parameters()) / 1e6, 2) == 1.47


@torch.no_grad()
def features(width: int, **changes: object) -> tuple[float, float]:
    """The standard deviation of embeddings and of injections, with the first weights."""
    torch.manual_seed(0)
    layer = Equilibrium(Anderson(), Phantom())
    shape = {"vocabulary": 300, "width": width, "heads": 1, "inner_width": 4, "cutoffs": ()}
    network = DEQTransformer(layer, **cast(dict, {**shape, **changes}))
    segment = network.segment(torch.arange(300).unsqueeze(0))
    return float(network.embedding.tables[0].std()), float(segment.injections.std())


def test_first_embeddings_and_injections_are_as_large_at_every_width() -> None:
    published, narrow = features(700), features(64)
    assert published[0] == pytest.approx(0.01, rel=0.02)
    assert narrow[0] == pytest.approx(0.01 * (700 / 64) ** 0.5, rel=0.02)
    assert narrow[1] == pytest.approx(published[1], rel=0.1)
    assert features(64, initial_std=0.5)[0] == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"initial_std": 0.0}, "initial_std must be above 0"),
        ({"heads": 3}, "do not divide"),
        ({"memory_length": -1}, "memory_length must be at least 0"),
        ({"window": 0}, "window at least 1"),
        ({"cutoffs": [9, 5]}, "must increase"),
        ({"cutoffs": [9], "tie_projections": [True]}, "1 entries, but the vocabulary 2 clusters"),
        ({"cutoffs": [9], "tie_projections": [True] * 3}, "3 entries, but the vocabulary 2"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model(**changes)


def test_the_window_limits_what_is_seen() -> None:
    network = model(window=2, dropout=0.0).eval()
    given = tokens()
    changed = given.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 30
    z = torch.randn(2, 6, 16, dtype=torch.float64)
    before, after = (network.segment(t) for t in (given, changed))
    once = [part.f(z, *part.inputs) for part in (before, after)]
    torch.testing.assert_close(once[0][:, 2:], once[1][:, 2:], rtol=0, atol=0)
    assert (once[0][:, 1] != once[1][:, 1]).any()
