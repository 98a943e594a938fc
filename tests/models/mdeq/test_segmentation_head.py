"""The segmentation head: alignment of the branches, kernels, and gradients to all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.models.mdeq.segmentation_head import SegmentationHead


def states() -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return tuple(
        torch.randn(2, channels, 8 >> i, 12 >> i, requires_grad=True)
        for i, channels in enumerate((4, 6, 8))
    )


@pytest.mark.parametrize("kernel", [1, 3])
def test_every_pixel_gets_logits_that_hear_every_branch(kernel: Any) -> None:
    head = SegmentationHead((4, 6, 8), classes=5, kernel=kernel).eval()
    z = states()
    logits = head(z)
    assert logits.shape == (2, 5, 8, 12)
    logits.square().sum().backward()
    assert all(part.grad is not None and part.grad.abs().max() > 0 for part in z)


def test_corners_of_all_branches_lie_on_each_other() -> None:
    head = SegmentationHead((4, 6, 8), classes=5).eval()
    z = states()
    whole = head(z)
    corner = head(tuple(part[..., -1:, -1:] for part in z))
    torch.testing.assert_close(whole[..., -1:, -1:], corner)


def test_a_kernel_of_three_sees_the_neighbours() -> None:
    for kernel, reach in ((1, 1), (3, 9)):
        head = SegmentationHead((4,), classes=1, kernel=kernel).eval()  # type: ignore[arg-type]
        z = torch.randn(1, 4, 8, 8, requires_grad=True)
        head((z,))[0, 0, 4, 4].backward()
        assert z.grad is not None
        assert int((z.grad[0].abs().sum(dim=0) > 0).sum()) == reach
