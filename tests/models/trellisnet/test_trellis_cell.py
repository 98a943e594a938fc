"""One level of a trellis network against the same written out step by step."""

from __future__ import annotations

import pytest
import torch

from equipoise.models.trellisnet.cell import TrellisCell, delayed, input_taps

sigmoid = torch.sigmoid


def cell(weight_norm: bool = True) -> TrellisCell:
    torch.manual_seed(0)
    return TrellisCell(3, 4, weight_norm=weight_norm).double()


@pytest.mark.parametrize("dilation", [1, 2, 7])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_it_is_the_formula(dilation: int, weight_norm: bool) -> None:
    module = cell(weight_norm)
    z = torch.randn(2, 5, 8, dtype=torch.float64)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    earlier = torch.randn(2, 1, 8, dtype=torch.float64)
    injection = module.inward(input_taps(x, dilation))
    ours = module(dilation, z, injection, earlier)
    w_in, w_hidden = module.inward.weight(), module.recurrent.weight()
    for t in range(5):
        before = z[:, t - dilation] if t >= dilation else earlier[:, 0]
        x_before = x[:, t - dilation] if t >= dilation else torch.zeros_like(x[:, 0])
        gates = (
            torch.cat((x_before, x[:, t]), 1) @ w_in.T + module.inward.bias
            + torch.cat((before[:, :4], z[:, t, :4]), 1) @ w_hidden.T + module.recurrent.bias
        )  # fmt: skip
        i, o, g, f = gates.chunk(4, dim=1)
        c = sigmoid(f) * before[:, 4:] + sigmoid(i) * torch.tanh(g)
        torch.testing.assert_close(ours[:, t], torch.cat((sigmoid(o) * torch.tanh(c), c), 1))


def test_the_mask_drops_what_enters_and_not_the_cells() -> None:
    module = cell()
    z, earlier = torch.randn(2, 5, 8).double(), torch.randn(2, 1, 8).double()
    injection = torch.randn(2, 5, 16).double()
    nothing = torch.zeros(2, 1, 4).double()
    ours = module(1, z, injection, earlier, nothing)
    i, _, g, f = (injection + module.recurrent.bias).chunk(4, dim=-1)
    before = delayed(z, earlier, 1)[..., 4:]
    torch.testing.assert_close(ours[..., 4:], sigmoid(f) * before + sigmoid(i) * torch.tanh(g))


def test_derivatives_are_those_of_finite_differences() -> None:
    module = cell()
    shapes = ((1, 3, 8), (1, 3, 16), (1, 1, 8))
    given = [torch.randn(shape).double().requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(lambda *inputs: module(1, *inputs), given)
    assert torch.autograd.gradgradcheck(lambda *inputs: module(1, *inputs), given)


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_a_delay_repeats_what_came_earlier(steps: int) -> None:
    sequence = torch.arange(1.0, 6.0).view(1, 5, 1)
    moved = delayed(sequence, torch.full((1, 1, 1), 9.0), steps).flatten().tolist()
    assert moved == ([9.0] * steps + [1.0, 2.0, 3.0, 4.0, 5.0])[:5]
