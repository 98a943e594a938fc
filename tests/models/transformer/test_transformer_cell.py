"""The transformer layer: its three norms, its masks, its derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import relu

from equipoise.equilibrium import jacobian_norm
from equipoise.models.transformer.cell import Norm, TransformerCell, layer_norm
from equipoise.nn import AttentionScene, SinusoidalPositions

NORMS: tuple[Norm, ...] = ("post", "published_pre", "pre")


def cell(norm: Norm, weight_norm: bool = False) -> TransformerCell:
    torch.manual_seed(0)
    module = TransformerCell(8, 2, 12, norm=norm, weight_norm=weight_norm).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module


def arguments(module: TransformerCell) -> tuple[AttentionScene, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    z, past = torch.randn(2, 2, 3, 8, dtype=torch.float64, generator=generator)
    injection, earlier = torch.randn(2, 2, 3, 24, dtype=torch.float64, generator=generator)
    scene = module.attention.scene(SinusoidalPositions(8).double()(6), 3)
    return scene, z, injection, *module.remember(past, earlier)


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_the_formula_of_its_norm(norm: Norm) -> None:
    module = cell(norm)
    scene, z, injection, key, value = arguments(module)
    feed = lambda x: module.narrow(relu(module.widen(x)))  # noqa: E731
    seen = z if norm == "post" else layer_norm(z)
    o = z + module.attention(seen, injection, key, value, scene)
    h = layer_norm(o)
    expected = {
        "post": layer_norm(h + feed(h)), "published_pre": h + feed(h), "pre": o + feed(h)
    }  # fmt: skip
    torch.testing.assert_close(module(scene, z, injection, key, value), expected[norm])


@pytest.mark.parametrize("norm", NORMS)
def test_the_memory_is_normalised_where_the_state_is(norm: Norm) -> None:
    module = cell(norm)
    past = torch.randn(2, 3, 8, dtype=torch.float64)
    injection = torch.zeros(2, 3, 24, dtype=torch.float64)
    key, scaled = (module.remember(past * factor, injection)[0] for factor in (1.0, 5.0))
    same = torch.allclose(key, scaled, rtol=1e-4)
    assert same == (norm != "post")


def test_masks_act_where_they_are_meant_to() -> None:
    module = cell("post")
    given = arguments(module)
    z = given[1]
    masks = module.draw_masks(z, 6, 0.5, 0.5)
    assert [tuple(mask.shape) for mask in masks] == [(2, 1, 8), (2, 1, 12), (2, 1, 8), (2, 2, 3, 6)]
    ones = tuple(torch.ones_like(mask) for mask in masks)
    torch.testing.assert_close(module(*given, *ones), module(*given))
    silent = (*ones[:2], torch.zeros_like(masks[2]), ones[3])
    expected = layer_norm(layer_norm(module.attend(*given)))
    torch.testing.assert_close(module(*given, *silent), expected)
    torch.testing.assert_close(module.attend(*given, torch.zeros_like(masks[0]), *ones[1:]), z)


def test_no_masks_without_dropout() -> None:
    z = torch.zeros(2, 3, 8)
    assert cell("post").draw_masks(z, 6, 0.0, 0.0) == ()
    assert len(cell("post").draw_masks(z, 6, 0.5, 0.0)) == 3


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("weight_norm", [False, True])
def test_derivatives_are_those_of_finite_differences(norm: Norm, weight_norm: bool) -> None:
    module = cell(norm, weight_norm)
    _, *parts = arguments(module)
    small = [part[:1, :2].detach() for part in parts]
    scene = module.attention.scene(SinusoidalPositions(8).double()(4), 2)
    scene = AttentionScene(*(part.detach() for part in scene))
    f = lambda *inputs: module(scene, *inputs)  # noqa: E731
    given = [part.requires_grad_() for part in small]
    assert torch.autograd.gradcheck(f, given)
    assert torch.autograd.gradgradcheck(f, given, atol=1e-4)


def test_the_jacobian_norm_is_that_of_the_whole_jacobian() -> None:
    module = cell("published_pre")
    scene, *given = arguments(module)
    f = lambda *inputs: module(scene, *inputs)  # noqa: E731
    z, *inputs = (part[:1].detach() for part in given)
    whole = (
        torch.autograd.functional.jacobian(lambda z: f(z, *inputs), z).square().sum() / z.numel()
    )
    generator = torch.Generator().manual_seed(0)
    estimate = jacobian_norm(f, z, 400, *inputs, generator=generator)
    assert abs(estimate / whole - 1) < 0.1
    estimate.backward()
    assert module.widen.weight.grad is not None
