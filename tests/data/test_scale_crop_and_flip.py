"""The augmentation of street scenes: image and mask stay together, draws are reproducible."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equipoise.data.masked_files import IGNORED
from equipoise.data.scale_crop_and_flip import Draw, ScaleCropAndFlip, pad, resize

PUBLISHED = (0.5, 2.1)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """An image whose first two channels tell row and column, and a mask of the same in blocks."""
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    mask = (rows // 16 * 4 + columns // 16 + 1).to(torch.uint8)
    return torch.stack([rows, columns, mask * 10]).to(torch.uint8), mask


def with_draw(
    monkeypatch: pytest.MonkeyPatch, drawn: Draw, crop: tuple[int, int]
) -> ScaleCropAndFlip:
    augmentation = ScaleCropAndFlip(crop, PUBLISHED, seed=0)
    monkeypatch.setattr(augmentation, "draw", lambda *_: drawn)
    return augmentation


def test_at_scale_one_it_is_a_crop(
    pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = pair
    augmentation = with_draw(monkeypatch, Draw(1.0, 0.5, 0.999, False), (20, 30))
    crop, of_mask = augmentation(image, mask, 0, 0)
    assert torch.equal(crop, image[:, 14:34, 34:64])
    assert torch.equal(of_mask, mask[14:34, 34:64])


def test_a_flip_turns_image_and_mask(
    pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = with_draw(monkeypatch, Draw(1.4, 0.3, 0.7, False), (32, 32))(*pair, 0, 0)
    flipped = with_draw(monkeypatch, Draw(1.4, 0.3, 0.7, True), (32, 32))(*pair, 0, 0)
    for one, other in zip(plain, flipped, strict=True):
        assert torch.equal(one, other.flip(-1))


@pytest.mark.parametrize("scale", [0.5, 1.3, 2.1])
def test_the_mask_follows_the_image(
    pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    """The third channel is ten times the class, so both must agree away from the borders."""
    augmentation = with_draw(monkeypatch, Draw(scale, 0.4, 0.6, False), (24, 24))
    crop, mask = augmentation(*pair, 0, 0)
    agree = (crop[2].float() - 10.0 * mask).abs() <= 1
    counted = mask != IGNORED
    assert (agree & counted).sum() / counted.sum() > 0.75


def test_the_scale_is_relative_to_the_own_longer_side(pair: tuple[Tensor, Tensor]) -> None:
    image, mask = resize(*pair, 0.5)
    assert image.shape == (3, 24, 32)
    assert mask.shape == (24, 32)
    image, mask = resize(pair[0].mT, pair[1].mT, 2.1)
    assert mask.shape == (134, 101)
    assert set(mask.unique().tolist()) == set(pair[1].unique().tolist())


def test_padding_is_black_and_ignored_below_and_on_the_right(pair: tuple[Tensor, Tensor]) -> None:
    image, mask = pad(*pair, 60, 70)
    assert torch.equal(mask[:48, :64], pair[1])
    assert (mask[48:] == IGNORED).all()
    assert (mask[:, 64:] == IGNORED).all()
    assert not image[:, 48:].any()
    assert not image[:, :, 64:].any()


def test_draws_depend_on_seed_epoch_and_row_alone() -> None:
    one, same, other = (ScaleCropAndFlip((8, 8), PUBLISHED, seed) for seed in (1, 1, 2))
    torch.rand(3)
    assert one.draw(4, 7) == same.draw(4, 7)
    assert len({one.draw(4, 7), one.draw(5, 7), one.draw(4, 8), other.draw(4, 7)}) == 4


def test_scales_are_the_seventeen_published_ones() -> None:
    augmentation = ScaleCropAndFlip((8, 8), PUBLISHED, 0)
    draws = [augmentation.draw(0, row) for row in range(3000)]
    counts = torch.tensor([round(drawn.scale * 10) for drawn in draws]).bincount()
    assert counts.nonzero().flatten().tolist() == list(range(5, 22))
    assert ((counts[5:] - 3000 / 17).abs() < 5 * (3000 / 17) ** 0.5).all()
    flips = sum(drawn.flip for drawn in draws)
    assert abs(flips - 1500) < 5 * 27


def test_a_range_of_one_scale_leaves_the_size_alone() -> None:
    augmentation = ScaleCropAndFlip((8, 8), (1.0, 1.0), 0)
    assert {augmentation.draw(0, row).scale for row in range(50)} == {1.0}
    ranged = ScaleCropAndFlip((8, 8), (0.9, 1.2), 0)
    assert {round(ranged.draw(0, row).scale, 3) for row in range(200)} == {0.9, 1.0, 1.1, 1.2}
