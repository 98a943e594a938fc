"""The augmentation of street scenes: image and mask stay together, draws are reproducible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from equipoise.data.images.masked_files import IGNORED
from equipoise.data.images.transforms import (
    CIFAR10,
    CropAndFlip,
    Draw,
    Grey,
    Middle,
    Normalization,
    Preprocessing,
    ScaleCropAndFlip,
    evaluation_transform,
    pad,
    resize,
    whole_at,
    with_channels,
)
from equipoise.data.sampling import BatchIndex, stream

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


def test_it_is_torchvisions_normalize() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    scaled = functional.to_dtype(images, torch.float32, scale=True)
    mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    torch.testing.assert_close(CIFAR10(images), functional.normalize(scaled, mean, std))
    assert CIFAR10(images).dtype == torch.float32


def test_white_becomes_one() -> None:
    images = torch.tensor([0, 8, 16], dtype=torch.uint8).view(1, 1, 1, 3)
    assert Normalization((0.0,), (1.0,), white=16)(images).flatten().tolist() == [0.0, 0.5, 1.0]


def noise(samples: int) -> torch.Tensor:
    shape = (samples, 3, 32, 32)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=stream(0))


def test_each_image_is_torchvisions_crop_and_flip_at_its_own_draw() -> None:
    images, index = noise(64), BatchIndex(2, torch.arange(64))
    augmentation = CropAndFlip(64, seed=5)
    result = augmentation(images, index)
    for image, top, left, flip, got in zip(images, *augmentation.draws(index), result, strict=True):
        padded = functional.pad(image, [4, 4, 4, 4])
        expected = functional.crop(padded, int(top), int(left), 32, 32)
        assert torch.equal(got, functional.horizontal_flip(expected) if flip else expected)


def test_the_outcomes_and_their_frequencies_are_torchvisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = torch.arange(32 * 32).reshape(1, 32, 32).to(torch.int32)
    samples, index = 20_000, BatchIndex(0, torch.arange(20_000))
    top, left, flip = CropAndFlip(samples, seed=0).draws(index)
    counts = torch.zeros(9, 9, 2)
    counts.index_put_((top, left, flip.long()), torch.ones(samples), accumulate=True)
    expected = samples / counts.numel()
    # 161 degrees of freedom: the statistic has mean 161 and standard deviation 18.
    assert ((counts - expected) ** 2 / expected).sum() < 161 + 5 * 18
    published = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
    repeated = image.expand(162, 1, 32, 32)
    grid = torch.cartesian_prod(torch.arange(9), torch.arange(9), torch.arange(2))
    augmentation = CropAndFlip(162, seed=0)
    draws = (grid[:, 0], grid[:, 1], grid[:, 2].bool())
    monkeypatch.setattr(augmentation, "draws", lambda _: draws)
    possible = {tuple(out.flatten().tolist()) for out in augmentation(repeated, index)}
    assert len(possible) == 162
    assert all(tuple(published(image).flatten().tolist()) in possible for _ in range(200))


def test_draws_for_a_batch_depend_on_seed_epoch_and_row_alone() -> None:
    images = noise(40)
    rows = torch.tensor([30, 7, 7, 12])
    first = CropAndFlip(40, seed=1)(images[rows], BatchIndex(3, rows))
    used = CropAndFlip(40, seed=1)
    used(images, BatchIndex(0, torch.arange(40)))
    torch.rand(5)
    whole = used(images, BatchIndex(3, torch.arange(40)))
    assert torch.equal(first, whole[rows])
    assert not torch.equal(whole, used(images, BatchIndex(4, torch.arange(40))))
    assert not torch.equal(whole, CropAndFlip(40, 2)(images, BatchIndex(3, torch.arange(40))))


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (2, 64)])
def test_of_a_very_long_picture_the_middle_is_seen(size: tuple[int, int]) -> None:
    pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    for make in (evaluation_transform, whole_at):
        seen = make(32)(pixels)
        assert seen.shape == (3, 32, 32)
        middle = v2.Compose(make(32).transforms[1:])(pixels)
        assert torch.equal(seen, middle)


@pytest.mark.parametrize("size", [(40, 50), (16, 256), (31, 7)])
def test_of_other_pictures_nothing_is_cut_away(size: tuple[int, int]) -> None:
    pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    assert Middle()(pixels) is pixels


def test_grey_is_weighted_as_pillow_does() -> None:
    pixels = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).convert("L")
    assert Grey()(pixels)[0].tolist() == np.asarray(image).tolist()
    assert torch.equal(with_channels(pixels, 3), pixels)
    assert with_channels(pixels[:1], 3).shape == (3, 40, 50)


def test_grey_is_that_of_pillow_and_equal_channels_stay() -> None:
    pixels = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    assert np.array_equal(with_channels(pixels, 1)[0].numpy(), np.asarray(image.convert("L")))
    grey = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(with_channels(with_channels(grey, 3), 1), grey)
    assert with_channels(pixels, 3) is pixels


def test_preprocessing_counts_in_the_levels_of_the_data_and_pads_with_black() -> None:
    digits = Preprocessing(Normalization((0.0,), (1.0,), white=16), multiple=4)
    levels = torch.arange(17).view(1, 1, 17)
    pictures = ((levels * 255 + 8) // 16).to(torch.uint8)
    seen = digits(pictures)
    assert seen.shape == (1, 4, 20)
    torch.testing.assert_close(seen[:, :1, :17] * 16, levels.float())
    assert seen[:, 1:].abs().sum() == 0
    assert digits.numbers() == {"white": 16, "mean": [0.0], "std": [1.0], "multiple": 4}
