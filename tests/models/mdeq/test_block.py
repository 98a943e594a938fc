"""The residual block against its equations written out, and the branch's use of the injection."""

from __future__ import annotations

from itertools import repeat

import pytest
import torch
from torch.nn import functional

from equipoise.models.mdeq.block import Branch, ResidualBlock
from equipoise.nn import NormalisedConv2d


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
