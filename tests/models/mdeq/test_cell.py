"""The map f: branches, masks, and a single branch."""

from __future__ import annotations

from itertools import repeat

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mdeq.cell import (
    Branch,
    Cell,
    Fusion,
    ResidualBlock,
    WeightNorm,
    downward_path,
    post_fusion,
    upward_path,
)
from equipoise.models.mdeq.sizes import Size
from equipoise.nn import NormalisedConv2d, weights_computed_once

SIZE = Size((8, 12), (2, 3), 10, stem_stride=1, expansion=2, groups=4, blocks=(1, 2))


def arguments(batch: int = 3) -> tuple[tuple[Tensor, Tensor], Tensor]:
    z = (torch.randn(batch, 8, 6, 6), torch.randn(batch, 12, 3, 3))
    return z, torch.randn(batch, 8, 6, 6)


def test_state_keeps_its_shapes_and_samples_are_independent() -> None:
    cell = Cell(SIZE)
    z, injection = arguments()
    output = cell(z, injection)
    assert [value.shape for value in output] == [value.shape for value in z]
    alone = cell(tuple(value[1:2] for value in z), injection[1:2])
    for whole, single in zip(output, alone, strict=True):
        torch.testing.assert_close(whole[1:2], single, rtol=1e-4, atol=1e-5)


def test_one_mask_a_block_each_of_its_branch() -> None:
    cell = Cell(SIZE)
    z, injection = arguments()
    masks = cell.draw_masks(injection, 0.5)
    assert [tuple(mask.shape) for mask in masks] == [(3, 8, 1, 1), (3, 12, 1, 1), (3, 12, 1, 1)]
    ones = tuple(torch.ones_like(mask) for mask in masks)
    plain = cell(z, injection)
    for masked, value in zip(cell(z, injection, *ones), plain, strict=True):
        assert torch.equal(masked, value)
    assert not torch.allclose(cell(z, injection, *masks)[0], plain[0])


def test_too_few_masks_are_refused() -> None:
    cell = Cell(SIZE)
    z, injection = arguments()
    with pytest.raises(ValueError, match="1 masks for 3 blocks"):
        cell(z, injection, cell.draw_masks(injection, 0.5)[0])


def test_once_computed_weights_change_nothing() -> None:
    cell = Cell(SIZE)
    z, injection = arguments()
    for held, plain in zip(
        weights_computed_once(cell)(z, injection), cell(z, injection), strict=True
    ):
        assert torch.equal(held, plain)


def test_every_parameter_takes_part() -> None:
    cell = Cell(SIZE)
    z, injection = arguments()
    sum(value.mul(torch.randn_like(value)).sum() for value in cell(z, injection)).backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().max() > 0
        for parameter in cell.parameters()
    )


def test_single_branch_ends_with_its_blocks() -> None:
    cell = Cell(Size((8,), (2,), 10, stem_stride=1, expansion=2, groups=4))
    z, injection = torch.randn(2, 2, 8, 5, 5).unbind()
    (output,) = cell((z,), injection)
    assert torch.equal(output, cell.branches[0].blocks[0](z, injection, None))
    assert len(list(cell.post_fusion.parameters())) == 0


@pytest.mark.parametrize(
    ("weight_norm", "normalised"),
    [
        ("none", set()),
        ("blocks", {"branches"}),
        ("published", {"branches", "post_fusion"}),
        ("all", {"branches", "post_fusion", "fusion"}),
    ],
)
def test_weight_norm(weight_norm: WeightNorm, normalised: set[str]) -> None:
    cell = Cell(SIZE, weight_norm=weight_norm)
    names = [name for name, _ in cell.named_parameters()]
    assert {name.split(".")[0] for name in names if name.endswith("length")} == normalised
    z, injection = arguments()
    assert [value.shape for value in cell(z, injection)] == [value.shape for value in z]


def test_block_is_its_equations() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(8, 2.5, groups=4, big_kernels=0, affine=False, weight_norm=True).double()
    h, injection = torch.randn(2, 2, 8, 6, 6, dtype=torch.float64).unbind()
    mask = torch.rand(2, 8, 1, 1, dtype=torch.float64)
    wide = functional.conv2d(h, block.conv1.weight(), padding=1)
    assert wide.shape[1] == 20
    wide = functional.group_norm(wide, 4).relu()
    o = functional.conv2d(wide, block.conv2.weight(), padding=1) * mask + injection
    o = functional.group_norm(o, 4) + h
    torch.testing.assert_close(block(h, injection, mask), functional.group_norm(o.relu(), 4))


@pytest.mark.parametrize(("big_kernels", "kernels"), [(0, (3, 3)), (1, (5, 3)), (2, (5, 5))])
@pytest.mark.parametrize("weight_norm", [True, False])
def test_kernels_and_weight_norm(
    big_kernels: int, kernels: tuple[int, int], weight_norm: bool
) -> None:
    block = ResidualBlock(4, 2, 2, big_kernels, affine=True, weight_norm=weight_norm)
    for convolution, kernel in zip((block.conv1, block.conv2), kernels, strict=True):
        assert isinstance(convolution, NormalisedConv2d) == weight_norm
        weight = convolution.weight() if weight_norm else convolution.weight
        assert weight.shape[-1] == kernel
    h = torch.randn(1, 4, 6, 6)
    assert block(h, None, None).shape == h.shape


def test_affine_switch() -> None:
    names = dict(ResidualBlock(4, 2, 2, 0, affine=False, weight_norm=True).named_parameters())
    assert not any("norm" in name for name in names)


def test_only_the_first_block_takes_the_injection_and_each_takes_its_mask() -> None:
    torch.manual_seed(0)
    branch = Branch(4, 2, 2, 2, 0, affine=True, weight_norm=True)
    h, injection = torch.randn(2, 1, 4, 6, 6).unbind()
    masks = torch.rand(2, 1, 4, 1, 1).unbind()
    first = branch.blocks[0](h, injection, masks[0])
    expected = branch.blocks[1](first, None, masks[1])
    torch.testing.assert_close(branch(h, injection, iter(masks)), expected)
    assert not torch.allclose(branch(h, injection, repeat(None)), expected)


def test_upward_path_normalises_before_it_upsamples() -> None:
    path = upward_path(6, 4, doublings=2, groups=2, affine=False, weight_norm=False)
    features = torch.randn(2, 6, 3, 3)
    normalised = functional.group_norm(path.conv(features), 2)
    expected = normalised.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(path(features), expected)


def test_downward_path_widens_last_and_has_no_last_relu() -> None:
    path = downward_path(4, 8, halvings=3, groups=2, affine=True, weight_norm=False)
    assert [stage.conv.out_channels for stage in path] == [4, 4, 8]
    assert [isinstance(stage[-1], nn.ReLU) for stage in path] == [True, True, False]
    output = path(torch.randn(2, 4, 16, 8))
    assert output.shape == (2, 8, 2, 1)
    assert output.min() < 0


def test_fusion_sums_every_path() -> None:
    torch.manual_seed(0)
    fusion = Fusion((4, 6, 8), groups=2, affine=True)
    b = tuple(torch.randn(2, channels, 8 >> i, 8 >> i) for i, channels in enumerate((4, 6, 8)))
    y = fusion(b)
    assert [value.shape for value in y] == [value.shape for value in b]
    torch.testing.assert_close(y[1], fusion.paths[1]["0"](b[0]) + b[1] + fusion.paths[1]["2"](b[2]))


def test_post_fusion_has_half_the_groups() -> None:
    layer = post_fusion(8, 4, affine=False, weight_norm=True)
    features = torch.randn(2, 8, 3, 3)
    projected = functional.conv2d(features.relu(), layer.conv.weight())
    torch.testing.assert_close(layer(features), functional.group_norm(projected, 2))


@pytest.mark.parametrize("weight_norm", [True, False])
def test_weight_norm_of_all_paths(weight_norm: bool) -> None:
    fusion = Fusion((4, 6, 8), groups=2, affine=True, weight_norm=weight_norm)
    assert {isinstance(m, NormalisedConv2d) for m in fusion.modules() if hasattr(m, "stride")} == {
        weight_norm
    }
    b = tuple(torch.randn(2, channels, 8 >> i, 8 >> i) for i, channels in enumerate((4, 6, 8)))
    assert [value.shape for value in fusion(b)] == [value.shape for value in b]
