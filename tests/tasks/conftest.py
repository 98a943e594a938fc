"""Batches and the parts of a task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from two_heads import CLASSES, MASK_CLASSES, TwoHeads

from equipoise.tasks.mask_loss import IGNORED
from equipoise.tasks.schedules import Constant

Parts = dict[str, Any]


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same weights and batches in every test."""
    torch.manual_seed(0)


@pytest.fixture
def parts() -> Callable[..., Parts]:
    """Network, optimiser and schedule of a task."""

    def make(*outputs: str) -> Parts:
        optimizer = partial(torch.optim.Adam, lr=0.03)
        schedule = Constant()
        return {
            "model": TwoHeads(outputs), "make_optimizer": optimizer, "schedule": schedule,
        }  # fmt: skip

    return make


@pytest.fixture
def batches() -> list[dict[str, Tensor]]:
    """Grey images whose brightness is the class of each block, the last row of pixels ignored."""

    def batch() -> dict[str, Tensor]:
        blocks = torch.randint(0, MASK_CLASSES, (4, 3, 4))
        mask = blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)
        scene = mask.unsqueeze(1) / 2 - 1 + 0.05 * torch.randn(4, 1, 12, 16)
        mask[:, -1] = IGNORED
        label = torch.randint(0, CLASSES, (4,))
        image = (label / 1.0 - 1).view(4, 1, 1, 1) + 0.05 * torch.randn(4, 1, 12, 16)
        index = torch.arange(4)
        return {"image": image, "label": label, "scene": scene, "mask": mask, "index": index}

    return [batch() for _ in range(6)]
