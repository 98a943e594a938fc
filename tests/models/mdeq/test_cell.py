"""The map f: branches, masks, and a single branch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.models.mdeq.cell import Cell
from equipoise.models.mdeq.convolution import WeightNorm
from equipoise.models.mdeq.sizes import Size
from equipoise.nn import weights_computed_once

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
