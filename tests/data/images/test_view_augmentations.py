"""The published augmentations, and those of pictures of few grey levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from equipoise.config.about import written
from equipoise.config.compose import CONF
from equipoise.data.images.view_augmentations import (
    AffineViews,
    PhotographViews,
    Step,
    carried_out,
    turned_hue,
)
from equipoise.errors import UserError

NEUTRAL: dict[str, Any] = {
    "crop_size": 24, "crop_scale": (1.0, 1.0), "crop_first": True, "interpolation": "bilinear",
    "flip_probability": 0.0, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1,
    "jitter_probability": 0.0, "gray_probability": 0.0, "blur_probability": (0.0, 0.0),
    "blur_sigma": (0.1, 2.0), "solarize_probability": (0.0, 0.0),
}  # fmt: skip
STILL: dict[str, Any] = {
    "crop_size": 8, "zoom": (1.0, 1.0), "aspect": 1.0, "rotation": 0.0, "shift": 0.0,
    "contrast": 0.0, "noise": 0.0,
}  # fmt: skip


def picture(seed: int = 0, height: int = 24, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def published(task: str, **changes: Any) -> PhotographViews:
    """The augmentation of a task's file."""
    node = written(CONF / "task" / f"{task}.yaml")["augmentation"]
    values = {name: value for name, value in node.items() if name != "_target_"}
    return PhotographViews(**{**values, "crop_size": 32, **changes})


def torchvision_views(steps: list[v2.Transform], key: int, count: int) -> list[Tensor]:
    """What torchvision's own composition draws from the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key)
        image = functional.to_pil_image(picture(7, 40, 52))
        return [functional.pil_to_tensor(v2.Compose(steps)(image)) for _ in range(count)]


JITTER = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
CIFAR = [v2.RandomResizedCrop(32), v2.RandomHorizontalFlip(), JITTER, v2.RandomGrayscale(0.2)]
BICUBIC = v2.RandomResizedCrop(32, (0.2, 1.0), interpolation=InterpolationMode.BICUBIC)
TINY = [JITTER, v2.RandomGrayscale(0.1), BICUBIC, v2.RandomHorizontalFlip()]


@pytest.mark.parametrize(
    ("task", "steps"), [("ssl_cifar10", CIFAR), ("ssl_tiny_imagenet", TINY), ("ssl_stl10", TINY)]
)
def test_views_are_the_pixels_of_the_published_transforms(
    task: str, steps: list[v2.Transform]
) -> None:
    augmentation = published(task)
    for key in range(12):
        views = augmentation([picture(7, 40, 52)], np.array([key], dtype=np.uint64), 255)
        expected = torchvision_views(steps, key, 2)
        assert [view.shape for view in views] == [(1, 3, 32, 32)] * 2
        for view, wanted in zip(views, expected, strict=True):
            assert torch.equal(view[0], wanted)


def test_the_two_pipelines_of_the_original_paper_differ_in_blur_and_solarisation() -> None:
    original = published("ssl_imagenet")
    assert [tuple(original.blur_probability), tuple(original.solarize_probability)] == [
        (1.0, 0.1),
        (0.0, 0.2),
    ]
    white = {**NEUTRAL, "solarize_probability": (0.0, 1.0)}
    bright = torch.full((3, 24, 24), 200, dtype=torch.uint8)
    first, second = PhotographViews(**white)([bright], np.array([3], dtype=np.uint64), 255)
    assert torch.equal(first[0], bright)
    assert torch.equal(second[0], 255 - bright)
    blurred, sharp = PhotographViews(**{**NEUTRAL, "blur_probability": (1.0, 0.0)})(
        [picture()], np.array([3], dtype=np.uint64), 255
    )
    assert torch.equal(sharp[0], picture())
    assert blurred.float().std() < 0.8 * sharp.float().std()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, picture()),
        ({"flip_probability": 1.0}, picture().flip(-1)),
        ({"gray_probability": 1.0}, functional.rgb_to_grayscale(picture(), 3)),
    ],
)
def test_a_probability_of_one_always_and_of_zero_never(
    changes: dict[str, Any], expected: Tensor
) -> None:
    for view in PhotographViews(**{**NEUTRAL, **changes})(
        [picture()] * 4, np.arange(4, dtype=np.uint64), 255
    ):
        assert (view.int() - expected.int()).abs().max() <= 1


def test_an_operation_happens_as_often_as_its_probability_says() -> None:
    image = Image.new("RGB", (2, 2))
    count = [0]

    def counted(image: Image.Image) -> Image.Image:
        count[0] += 1
        return image

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(1000):
            carried_out([Step(0.2, counted)], image)
    assert 160 < count[0] < 240


@settings(deadline=None, max_examples=30)
@given(st.floats(-0.5, 0.5), st.integers(0, 1000))
def test_the_hue_is_turned_as_torchvision_turns_it(factor: float, seed: int) -> None:
    image = functional.to_pil_image(picture(seed, 16, 16))
    expected = functional.adjust_hue(image, factor)
    assert np.array_equal(np.asarray(turned_hue(image, factor)), np.asarray(expected))


@pytest.mark.parametrize("augmentation", [published("ssl_cifar10"), published("ssl_imagenet")])
def test_a_view_is_a_function_of_its_key_alone(augmentation: PhotographViews) -> None:
    pictures, keys = [picture(seed) for seed in range(3)], np.array([5, 6, 7], dtype=np.uint64)
    before = torch.get_rng_state()
    first, second = augmentation(pictures, keys, 255)
    (alone,) = augmentation(pictures[2:], keys[2:], 255, count=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(alone[0], first[2])
    assert not torch.equal(first, second)
    other, _ = augmentation(pictures, np.array([8, 9, 10], dtype=np.uint64), 255)
    assert not torch.equal(other, first)


def test_grey_pictures_are_refused_by_an_augmentation_of_colours() -> None:
    with pytest.raises(UserError, match=r"1 channels instead of 3: choose .*AffineViews"):
        PhotographViews(**NEUTRAL)([picture()[:1]], np.array([0], dtype=np.uint64), 255)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"crop_scale": (0.8, 0.2)}, r"crop_scale is \[0.8, 0.2\]: set it to \[least,most\]"),
        ({"blur_sigma": (1.0,)}, r"blur_sigma is \[1.0\]"),
        ({"blur_probability": (1.0,)}, r"blur_probability is \[1.0\]: give two numbers"),
        ({"solarize_probability": (0, 0, 0)}, "solarize_probability"),
    ],
)
def test_ranges_that_are_none_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        PhotographViews(**{**NEUTRAL, **values})


def digits(count: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (1, 8, 8)
    return [
        torch.randint(0, 17, shape, generator=generator, dtype=torch.uint8) for _ in range(count)
    ]


def test_without_any_change_the_picture_stays() -> None:
    for view in AffineViews(**STILL)(digits(), np.arange(6, dtype=np.uint64), 16):
        assert (view - torch.stack(digits())).abs().max() < 1e-4


def test_fractions_of_the_grey_levels_stay_between_black_and_white() -> None:
    changes = {"zoom": (0.8, 1.3), "aspect": 1.3, "rotation": 20.0, "shift": 0.1,
               "contrast": 0.4, "noise": 0.2}  # fmt: skip
    augmentation = AffineViews(**{**STILL, **changes})
    first, second = augmentation(digits(), np.arange(6, dtype=np.uint64), 16)
    assert first.dtype == torch.float32
    assert first.shape == (6, 1, 8, 8)
    assert len(first.unique()) > 100
    assert first.min() >= 0
    assert first.max() <= 16
    assert not torch.equal(first, second)
    (alone,) = augmentation(digits()[4:], np.array([4, 5], dtype=np.uint64), 16, count=1)
    assert torch.allclose(alone, first[4:], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "growth"), [({"zoom": (2.0, 2.0)}, 4.0), ({"zoom": (0.5, 0.5)}, 0.25)]
)
def test_the_zoom_is_of_both_sides(changes: dict[str, Any], growth: float) -> None:
    spot = torch.zeros(1, 16, 16, dtype=torch.uint8)
    spot[:, 6:10, 6:10] = 16
    (view,) = AffineViews(**{**STILL, **changes, "crop_size": 16})(
        [spot], np.array([0], dtype=np.uint64), 16, count=1
    )
    assert float(view.sum()) == pytest.approx(growth * float(spot.sum()), rel=0.15)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**9))
def test_the_centre_moves_no_farther_than_the_shift(key: int) -> None:
    spot = torch.zeros(1, 32, 32, dtype=torch.uint8)
    spot[:, 12:20, 12:20] = 16
    moved = {**STILL, "crop_size": 32, "shift": 0.2, "rotation": 30.0, "aspect": 1.5}
    (view,) = AffineViews(**moved)([spot], np.array([key], dtype=np.uint64), 16, count=1)
    places = torch.arange(32) + 0.5
    for axis in (0, 1):
        weights = view[0, 0].sum(dim=axis)
        centre = float((weights * places).sum() / weights.sum())
        # the shift is drawn in the picture that is stretched afterwards
        assert abs(centre - 16) <= 0.2 * 32 * 1.5**0.5 * 1.4 + 0.5
