"""Relative attention against the same written out with loops; derivatives; positions."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from equipoise.nn import RelativeAttention, SinusoidalPositions

WIDTH, HEADS, BATCH, LENGTH, MEMORY = 8, 2, 2, 4, 3


def attention(weight_norm: bool = False) -> RelativeAttention:
    torch.manual_seed(0)
    module = RelativeAttention(WIDTH, HEADS, weight_norm=weight_norm).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def tensors(memory: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, dtype=torch.float64, generator=generator)
    return (
        draw(BATCH, LENGTH, WIDTH), draw(BATCH, LENGTH, 3 * WIDTH),
        draw(BATCH, memory, WIDTH), draw(BATCH, memory, 3 * WIDTH),
    )  # fmt: skip


def positions(length: int) -> Tensor:
    return SinusoidalPositions(WIDTH).double()(length)


def written_out(
    module: RelativeAttention, given: tuple[Tensor, ...], window: int | None, dropped: Tensor | None
) -> Tensor:
    """The formula of the class, entry by entry."""
    features, injection, remembered, remembered_injection = given
    full = torch.cat((remembered, features), dim=1)
    projected = module.query_key_value(full) + torch.cat((remembered_injection, injection), dim=1)
    q, k, v = (p.unflatten(-1, (HEADS, -1)) for p in projected.chunk(3, dim=-1))
    reach, memory = full.shape[1], remembered.shape[1]
    rows = module.position(positions(reach)).unflatten(-1, (HEADS, -1))
    result = torch.zeros(BATCH, LENGTH, HEADS, WIDTH // HEADS, dtype=torch.float64)
    for b in range(BATCH):
        for h in range(HEADS):
            for i in range(LENGTH):
                query = q[b, memory + i, h]
                seen = [
                    j for j in range(memory + i + 1) if window is None or memory + i - j < window
                ]
                scores = [
                    (query + module.content_bias[h]) @ k[b, j, h]
                    + (query + module.position_bias[h]) @ rows[reach - 1 - (memory + i - j), h]
                    for j in seen
                ]
                weights = torch.softmax(torch.stack(scores) * module.scale, dim=0)
                if dropped is not None:
                    weights = weights * dropped[b, h, i, seen]
                result[b, i, h] = weights @ v[b, seen, h]
    return module.output(result.flatten(2))


@pytest.mark.parametrize("memory", [0, MEMORY])
@pytest.mark.parametrize("window", [None, 2, 5])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_it_is_the_formula(memory: int, window: int | None, weight_norm: bool) -> None:
    module, given = attention(weight_norm), tensors(memory)
    scene = module.scene(positions(memory + LENGTH), LENGTH, window)
    ours = module(*given[:2], *module.remember(*given[2:]), scene)
    torch.testing.assert_close(ours, written_out(module, given, window, None))


def test_dropped_weights_are_not_made_up_for() -> None:
    module, given = attention(), tensors(MEMORY)
    dropped = torch.bernoulli(torch.full((BATCH, HEADS, LENGTH, MEMORY + LENGTH), 0.5)).double()
    scene = module.scene(positions(MEMORY + LENGTH), LENGTH)
    ours = module(*given[:2], *module.remember(*given[2:]), scene, dropped)
    torch.testing.assert_close(ours, written_out(module, given, None, dropped))


def test_nobody_looks_ahead() -> None:
    module, (features, injection, *past) = attention(), tensors(MEMORY)
    scene = module.scene(positions(MEMORY + LENGTH), LENGTH)
    before = module(features, injection, *module.remember(*past), scene)
    features[:, 2:] += 1.0
    after = module(features, injection, *module.remember(*past), scene)
    torch.testing.assert_close(after[:, :2], before[:, :2], rtol=0, atol=0)
    assert (after[:, 2:] != before[:, 2:]).all()


def test_first_and_second_derivatives_are_those_of_finite_differences() -> None:
    module, given = attention(), tensors(2)
    inputs = [tensor[:1, :2].requires_grad_() for tensor in given]
    scene = module.scene(positions(4).detach(), 2)
    scene = scene._replace(positions=scene.positions.detach())

    def f(features: Tensor, injection: Tensor, past: Tensor, past_injection: Tensor) -> Tensor:
        return module(features, injection, *module.remember(past, past_injection), scene)

    assert torch.autograd.gradcheck(f, inputs)
    assert torch.autograd.gradgradcheck(f, inputs)


def test_it_runs_under_autocast() -> None:
    module, given = attention().float(), [tensor.float() for tensor in tensors(MEMORY)]
    scene = module.scene(positions(MEMORY + LENGTH).float(), LENGTH)
    expected = module(*given[:2], *module.remember(*given[2:]), scene)
    with torch.autocast("cpu", torch.bfloat16):
        ours = module(*given[:2], *module.remember(*given[2:]), scene)
    torch.testing.assert_close(ours.float(), expected, rtol=0.1, atol=0.1 * expected.std().item())


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide a width of 8"):
        RelativeAttention(8, 3)


def test_rows_run_from_the_farthest_to_distance_zero() -> None:
    rows = SinusoidalPositions(6).double()(4)
    for row, distance in zip(rows, (3, 2, 1, 0), strict=True):
        angles = [distance * 10000 ** (-2 * i / 6) for i in range(3)]
        expected = [*map(math.sin, angles), *map(math.cos, angles)]
        torch.testing.assert_close(row.tolist(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [0, 7])
def test_an_odd_width_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match="even width"):
        SinusoidalPositions(width)
