"""The bundled scenes and the samples of task=digits_and_scenes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.data.images.digit_scenes import (
    CLASSES,
    INK,
    NOISE,
    DigitsAndScenes,
    DigitScenes,
    draw_scene,
    draw_scenes,
    enlarge,
)
from equipoise.data.images.digits import Digits
from equipoise.data.images.module import ImageDataModule
from equipoise.data.images.splits import MemoryScenes
from equipoise.data.sampling import BatchIndex, stream
from equipoise.errors import UserError


def prepared(kind: type[ImageDataModule], **arguments: Any) -> Any:
    module = kind(**{"train_scenes": 40, **arguments})
    module.setup()
    return module


def test_batches_hold_images_masks_and_rows() -> None:
    module = prepared(DigitScenes, batch_size=16)
    batches = list(module.train_dataloader())
    assert [len(batch["index"]) for batch in batches] == [16, 16, 8]
    first = batches[0]
    assert first["image"].shape == (16, 1, 32, 32)
    assert first["image"].dtype == torch.float32
    assert first["mask"].shape == (16, 32, 32)
    assert first["mask"].dtype == torch.int64
    rows = torch.cat([batch["index"] for batch in batches])
    assert torch.equal(rows.sort().values, torch.arange(40))
    assert module.class_names == list(CLASSES)
    assert len(CLASSES) == 11


def test_validation_and_test_have_a_scene_a_digit() -> None:
    module = prepared(DigitScenes)
    assert [len(module.splits[name]) for name in ("train", "val", "test")] == [40, 144, 359]


def test_scenes_are_drawn_from_the_digits_of_their_split(monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[int, torch.Tensor] = {}

    def note(digits: torch.Tensor, labels: torch.Tensor, count: int, side: int, *key: int) -> Any:
        used[key[1]] = digits
        return MemoryScenes(torch.zeros(count, 1, side, side), torch.zeros(count, side, side), None)

    monkeypatch.setattr("equipoise.data.images.digit_scenes.draw_scenes", note)
    prepared(DigitScenes, seed=3)
    every = torch.cat(list(used.values()))
    assert len(every.flatten(1).unique(dim=0)) == len(every) == 1797
    plain = Digits(seed=3)
    plain.setup()
    assert torch.equal(used[2], plain.splits["test"].images[:, 0] / 16)


def test_the_seed_decides_the_scenes() -> None:
    one, same, other = (prepared(DigitScenes, seed=seed).splits["val"] for seed in (1, 1, 2))
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)


def test_training_images_are_normalised() -> None:
    module = prepared(DigitScenes, train_scenes=400)
    pixels = module.splits["train"][BatchIndex(0, torch.arange(400))]["image"]
    assert abs(pixels.mean()) < 0.03
    assert abs(pixels.std() - 1) < 0.03


@pytest.mark.parametrize(("argument", "value"), [("train_scenes", 0), ("canvas", 8)])
def test_values_that_cannot_work_are_named(argument: str, value: int) -> None:
    arguments: dict[str, Any] = {argument: value}
    with pytest.raises(UserError, match=rf"task\.{argument} is {value}"):
        DigitScenes(**arguments)


def test_a_canvas_of_another_size() -> None:
    batch = next(iter(prepared(DigitScenes, canvas=48).test_dataloader()))
    assert batch["image"].shape[1:] == (1, 48, 48)


def test_digits_stand_beside_the_scenes_of_the_other_task() -> None:
    both, scenes = prepared(DigitsAndScenes, seed=1), prepared(DigitScenes, seed=1)
    digits = Digits(seed=1)
    digits.setup()
    for name in ("train", "val", "test"):
        rows = BatchIndex(0, torch.arange(30))
        batch, alone = both.splits[name][rows], scenes.splits[name][rows]
        assert torch.equal(batch["scene"], alone["image"])
        assert torch.equal(batch["mask"], alone["mask"])
        assert torch.equal(batch["label"], digits.splits[name].labels[:30])
        assert batch["image"].shape == batch["scene"].shape
    assert len(both.splits["test"]) == len(digits.splits["test"])


def test_in_training_the_digits_take_turns() -> None:
    both = prepared(DigitsAndScenes, train_scenes=1300)
    first, again = (both.splits["train"][BatchIndex(0, torch.tensor([row]))] for row in (3, 1297))
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["scene"], again["scene"])


def test_enlarged_digits_keep_the_range() -> None:
    split = prepared(DigitsAndScenes).splits["train"]
    assert split.images.shape[1:] == (1, 32, 32)
    assert split.images.dtype == torch.uint8
    assert (split.images.min(), split.images.max()) == (0, 255)
    flat = enlarge(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8), 32)
    assert flat.unique().tolist() == [0, 1]


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
    areas = {int((enlarge(images[0, None, None], side) > INK).sum()) for side in range(8, SIDE)}
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
