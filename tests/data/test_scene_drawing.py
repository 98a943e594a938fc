"""Scenes: what is drawn is what the mask says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.data.sampling import stream
from equipoise.data.scene_drawing import INK, NOISE, draw_scene, draw_scenes, enlarge

SIDE = 32


@pytest.fixture
def digits() -> tuple[Tensor, Tensor]:
    """Ten digits that are squares of full ink."""
    images = torch.zeros(10, 8, 8)
    images[:, 2:6, 2:6] = 1
    return images, torch.arange(10)


def test_masks_mark_the_ink_of_one_to_three_digits(digits: tuple[Tensor, Tensor]) -> None:
    counts = set()
    for seed in range(400):
        image, mask = draw_scene(*digits, SIDE, stream(seed))
        assert image.shape == mask.shape == (SIDE, SIDE)
        assert (image[mask > 0] > INK).all()
        assert mask.max() <= 10
        counts.add(len(mask.unique()) - 1)
    assert counts == {1, 2, 3}


def test_digits_do_not_cover_each_other(digits: tuple[Tensor, Tensor]) -> None:
    """Each keeps all pixels of its ink: as many as it has alone at some size."""
    images, _ = digits
    areas = {int((enlarge(images[0], side) > INK).sum()) for side in range(8, SIDE)}
    for seed in range(40):
        _, mask = draw_scene(images, torch.arange(10), SIDE, stream(seed))
        present = [k for k in mask.unique().tolist() if k]
        found = [int((mask == k).sum()) for k in present]
        sums = {a + b for a in areas for b in areas} | areas  # a digit may be drawn twice
        assert all(area in sums | {a + b for a in sums for b in areas} for area in found)


def test_a_smaller_set_is_the_beginning_of_a_larger(digits: tuple[Tensor, Tensor]) -> None:
    few, many = draw_scenes(*digits, 3, SIDE, 7, 0), draw_scenes(*digits, 6, SIDE, 7, 0)
    assert torch.equal(few.images, many.images[:3])
    assert torch.equal(few.masks, many.masks[:3])
    assert few.images.dtype == few.masks.dtype == torch.uint8
    assert not torch.equal(few.images, draw_scenes(*digits, 3, SIDE, 8, 0).images)


def test_the_background_is_cluttered_but_darker_than_ink(digits: tuple[Tensor, Tensor]) -> None:
    scenes = draw_scenes(*digits, 20, SIDE, 1)
    background = scenes.images[:, 0][scenes.masks == 0].float() / 255
    assert 0.05 < background.mean() < 2 * NOISE
    assert (background > NOISE).float().mean() > 0.005
