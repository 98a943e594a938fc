"""One level of a trellis network against the same written out step by step."""

from __future__ import annotations

import pytest
import torch

from equipoise.models.trellisnet.cell import (
    TapWeight,
    TrellisCell,
    delayed,
    input_taps,
    row_norms,
    tap_linear,
)

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


@pytest.mark.parametrize("normalised", [False, True])
def test_a_weight_keeps_its_first_value(normalised: bool) -> None:
    given = torch.randn(4, 6)
    torch.testing.assert_close(TapWeight(given, normalised=normalised, drop=0.5).eval()(), given)


def test_rows_have_their_length_whatever_is_dropped() -> None:
    torch.manual_seed(0)
    weight = TapWeight(torch.randn(4, 20), normalised=True, drop=0.5)
    torch.testing.assert_close(row_norms(weight()), weight.length.detach())


def test_the_earlier_tap_alone_is_dropped_and_scaled_up() -> None:
    torch.manual_seed(0)
    given = torch.randn(50, 40)
    dropped = TapWeight(given, normalised=False, drop=0.25)()
    torch.testing.assert_close(dropped[:, 20:], given[:, 20:])
    gone = dropped[:, :20] == 0
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.05)
    torch.testing.assert_close(dropped[:, :20][~gone], given[:, :20][~gone] / 0.75)


def test_a_map_starts_without_a_bias() -> None:
    layer = tap_linear(3, 5, bias=True, normalised=True, drop=0.0)
    assert layer.weight().shape == (5, 6)
    assert not layer.bias.any()
    assert tap_linear(3, 5, bias=False, normalised=True, drop=0.0).bias is None


def test_a_probability_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_drop must lie in"):
        TapWeight(torch.ones(2, 2), normalised=True, drop=1.0)
