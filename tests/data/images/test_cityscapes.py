"""Cityscapes in its published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from equipoise.data.images.cityscapes import CLASS_OF_ID, Cityscapes, to_classes
from equipoise.data.images.transforms import IMAGENET
from equipoise.data.sampling import BatchIndex
from equipoise.errors import UserError
from tests.data.images.segmentation_files import (
    HEIGHT,
    STREET_IDS,
    WIDTH,
    blocks,
    street_folder,
    write,
)

# id: class, from the published table; every other id is ignored
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
PUBLISHED = {number: k for k, number in enumerate(IDS)}


def streets(root: Path, **arguments: Any) -> Cityscapes:
    return Cityscapes(**{"path": str(root), "num_workers": 0, "crop": [16, 24], **arguments})


def test_thirty_four_ids_become_nineteen_classes() -> None:
    ids = torch.tensor([[-1, *range(34), 255]])
    expected = [PUBLISHED.get(number, 255) for number in (-1, *range(34), 255)]
    assert to_classes(ids, Path("a.png")).tolist() == [expected]
    assert list(CLASS_OF_ID.values())[13] == "car"


@pytest.mark.parametrize("unknown", [34, 100, -2])
def test_an_id_beyond_them_is_named_with_the_file(unknown: int) -> None:
    with pytest.raises(UserError, match=rf"a\.png has the label id {unknown}"):
        to_classes(torch.tensor([[7, unknown]]), Path("a.png"))


def test_training_crops_and_whole_validation_images(tmp_path: Path) -> None:
    data = streets(street_folder(tmp_path), batch_size=4)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 24)
    assert batch["mask"].shape == (4, 16, 24)
    assert batch["image"].dtype == torch.float32
    assert batch["mask"].dtype == torch.int64
    wanted = {PUBLISHED.get(number, 255) for number in STREET_IDS}
    assert set(batch["mask"].unique().tolist()) <= wanted
    (whole, _) = list(data.val_dataloader())
    assert whole["image"].shape == (1, 3, 32, 64)  # 40 pixels wide, padded to a multiple of 32
    assert set(whole["mask"].unique().tolist()) == wanted
    assert (whole["mask"][..., WIDTH:] == 255).all()
    pixels = np.array(Image.open(data.splits["val"].source.pairs[0].image))
    expected = IMAGENET(torch.from_numpy(pixels).movedim(-1, 0)[None])
    assert torch.equal(whole["image"][..., :WIDTH], expected)
    black = IMAGENET(torch.zeros(1, 3, HEIGHT, 64 - WIDTH, dtype=torch.uint8))
    assert torch.equal(whole["image"][..., WIDTH:], black)


def test_test_is_validation(tmp_path: Path) -> None:
    data = streets(street_folder(tmp_path))
    assert data.find_files("test").pairs == data.find_files("val").pairs
    assert len(data.find_files("train")) == 4


def test_without_augmentation_training_images_are_whole(tmp_path: Path) -> None:
    data = streets(street_folder(tmp_path), augment=False, pad_multiple=8)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["image"].shape[-2:] == (32, 40)


def test_batches_are_a_pure_function_of_seed_epoch_and_rows(tmp_path: Path) -> None:
    street_folder(tmp_path)
    index = BatchIndex(2, torch.tensor([3, 0]))
    one, same, other = (streets(tmp_path, seed=s).read_split("train")[index] for s in (1, 1, 2))
    assert torch.equal(one["image"], same["image"])
    assert not torch.equal(one["image"], other["image"])
    alone = streets(tmp_path, seed=1).read_split("train")[BatchIndex(2, torch.tensor([0]))]
    assert torch.equal(alone["image"][0], one["image"][1])


def test_an_epoch_goes_through_a_small_folder_several_times(tmp_path: Path) -> None:
    street_folder(tmp_path)
    data = streets(tmp_path, batch_size=1, min_crops_per_epoch=10)
    data.setup()
    assert (len(data.train_dataloader()), len(data.val_dataloader())) == (12, 2)  # 3 times 4 images
    once = streets(tmp_path).read_split("train")
    thrice = data.splits["train"]
    for passed in range(3):
        expected = once[BatchIndex(3 * 2 + passed, torch.tensor([1]))]["image"]
        assert torch.equal(thrice[BatchIndex(2, torch.tensor([1 + 4 * passed]))]["image"], expected)
    rows = torch.cat([batch["index"] for batch in data.train_dataloader()])
    assert sorted(rows.tolist()) == list(range(12))


def test_as_many_crops_as_images_need_one_pass(tmp_path: Path) -> None:
    for crops in (1, 4):
        assert (
            len(streets(street_folder(tmp_path), min_crops_per_epoch=crops).read_split("train"))
            == 4
        )
    with pytest.raises(UserError, match=r"task\.min_crops_per_epoch is 0: set it to 1 or more"):
        streets(tmp_path, min_crops_per_epoch=0)


def test_a_folder_that_is_no_cityscapes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cityscapes must be downloaded"):
        streets(tmp_path, path=None).inspect()
    with pytest.raises(UserError, match="does not exist"):
        streets(tmp_path / "nowhere").inspect()
    with pytest.raises(UserError, match=r"has no images leftImg8bit.train.*set task\.path"):
        streets(tmp_path).inspect()


def test_what_systems_leave_behind_is_no_street(tmp_path: Path) -> None:
    expected = streets(street_folder(tmp_path)).find_files("train").pairs
    for part, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
        for city in (".ipynb_checkpoints", "ulm"):
            place = tmp_path / part / "train" / city
            place.mkdir(exist_ok=True)
            (place / f"._ulm_000000_000019_{ending}.png").write_bytes(b"\0\5\x16\7")
            if city != "ulm":
                (place / f"ulm_000000_000019_{ending}.png").write_bytes(b"")
    data = streets(tmp_path)
    assert data.find_files("train").pairs == expected
    data.inspect()


def test_a_split_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no images leftImg8bit.val"):
        streets(street_folder(tmp_path, val=0)).inspect()


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    data = streets(street_folder(tmp_path))
    missing = data.find_files("train").pairs[1].mask
    missing.unlink()
    with pytest.raises(UserError, match=missing.name):
        data.inspect()


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    data = streets(street_folder(tmp_path))
    wrong = data.find_files("val").pairs[1].mask
    write(blocks(0, STREET_IDS, width=20), wrong)
    with pytest.raises(UserError, match=f"{wrong.name} is 20 pixels wide and 32 high"):
        data.inspect()
    data.setup()
    with pytest.raises(UserError, match=f"{wrong.name} is 20 pixels wide"):
        list(data.val_dataloader())


@pytest.mark.parametrize("crop", [[16], [16, 24, 3], [0, 24]])
def test_a_crop_that_cannot_be(tmp_path: Path, crop: list[int]) -> None:
    with pytest.raises(UserError, match=r"task\.crop is"):
        streets(tmp_path, crop=crop)


@pytest.mark.parametrize("scales", [[1.0], [0.0, 1.0], [2.0, 0.5]])
def test_scales_that_cannot_be(tmp_path: Path, scales: list[float]) -> None:
    with pytest.raises(UserError, match=r"task\.scales is"):
        streets(tmp_path, scales=scales)
