"""The bundled scenes and the samples of task=digits_and_scenes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equipoise.data.digit_scenes import DigitScenes
from equipoise.data.digits import Digits
from equipoise.data.digits_and_scenes import DigitsAndScenes, enlarged
from equipoise.data.image_data_module import ImageDataModule
from equipoise.data.memory_scenes import MemoryScenes
from equipoise.data.sampling import BatchIndex
from equipoise.data.scene_drawing import CLASSES
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

    monkeypatch.setattr("equipoise.data.digit_scenes.draw_scenes", note)
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


def test_enlarging_keeps_the_range() -> None:
    images = torch.tensor([0, 16], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    large = enlarged(images, 32)
    assert large.shape == (2, 1, 32, 32)
    assert large.unique().tolist() == [0, 255]
