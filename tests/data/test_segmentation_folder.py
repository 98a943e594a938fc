"""A folder of one's own images with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from segmentation_files import blocks, noise, plain_folder, write

from equipoise.data.image_data_module import SplitName
from equipoise.data.segmentation_folder import SegmentationFolder
from equipoise.errors import UserError

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


def folder(root: Path, **arguments: Any) -> SegmentationFolder:
    return SegmentationFolder(**{"path": str(root), "crop": [16, 16], **arguments})


def stems(data: SegmentationFolder) -> list[list[str]]:
    return [[pair.image.stem for pair in data.find_files(name).pairs] for name in SPLITS]


def test_splits_are_drawn_by_the_seed(tmp_path: Path) -> None:
    data = folder(plain_folder(tmp_path, 20))
    train, val, test = stems(data)
    assert [len(split) for split in (train, val, test)] == [14, 3, 3]
    assert sorted(train + val + test) == sorted(str(number) for number in range(20))
    assert stems(folder(tmp_path)) == [train, val, test]
    assert stems(folder(tmp_path, seed=1)) != [train, val, test]


def test_masks_belong_to_their_images(tmp_path: Path) -> None:
    for name in SPLITS:
        for image, mask in folder(plain_folder(tmp_path)).find_files(name).pairs:
            assert image.stem == mask.stem


def test_both_kinds_of_files_in_one_folder(tmp_path: Path) -> None:
    for number in range(5):
        write(noise(number), tmp_path / f"{number}.png")
        write(blocks(number, (0, 1)), tmp_path / f"{number}_mask.png")
    train, val, test = stems(folder(tmp_path))
    assert sorted(train + val + test) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("layout", ["{split}/images/{n}.jpg", "images/{split}/{n}.jpg"])
def test_splits_in_folders_of_their_own(tmp_path: Path, layout: str) -> None:
    for number, split in enumerate(SPLITS):
        image = tmp_path / layout.format(split=split, n=number)
        mask = Path(str(image).replace("images", "masks")).with_suffix(".png")
        write(noise(number), image)
        write(blocks(number, (0, 1)), mask)
    assert stems(folder(tmp_path)) == [["0"], ["1"], ["2"]]


def test_without_a_test_folder_test_is_validation(tmp_path: Path) -> None:
    plain_folder(tmp_path / "train", 3)
    plain_folder(tmp_path / "val", 2)
    assert stems(folder(tmp_path)) == [["0", "1", "2"], ["0", "1"], ["0", "1"]]


def test_without_a_validation_folder_it_is_drawn_from_training(tmp_path: Path) -> None:
    plain_folder(tmp_path / "train", 10)
    train, val, test = stems(folder(tmp_path, val_fraction=0.3))
    assert (len(train), len(val)) == (7, 3)
    assert not set(train) & set(val)
    assert test == val


def test_classes_are_counted_in_the_masks(tmp_path: Path) -> None:
    data = folder(plain_folder(tmp_path, 6))
    assert data.inspect() == {"mask_classes": 3}
    write(blocks(0, (0, 7)), tmp_path / "masks" / "4.png")
    assert data.inspect() == {"mask_classes": 8}
    assert folder(tmp_path, mask_classes=9).inspect() == {}


def test_a_number_that_is_no_class_is_named_with_its_mask(tmp_path: Path) -> None:
    data = folder(plain_folder(tmp_path, 6), mask_classes=3, augment=False)
    data.setup()
    write(blocks(0, (0, 3)), tmp_path / "masks" / "4.png")
    every = [(files, row) for files in map(data.find_files, SPLITS) for row in range(len(files))]
    (wrong,) = [(files, row) for files, row in every if files.pairs[row].mask.stem == "4"]
    with pytest.raises(UserError, match=r"4\.png has the class number 3, but with 3 classes"):
        wrong[0].read(wrong[1])


def test_batches(tmp_path: Path) -> None:
    data = folder(plain_folder(tmp_path, 10), batch_size=4, mask_classes=3)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert set(batch["mask"].unique().tolist()) <= {0, 1, 2, 255}
    assert next(iter(data.test_dataloader()))["image"].shape == (1, 3, 32, 64)


def test_images_of_several_sizes_are_padded_to_the_largest_of_a_batch(tmp_path: Path) -> None:
    for number, width in enumerate((40, 70)):
        write(noise(number, width), tmp_path / "val" / "images" / f"{number}.png")
        write(blocks(number, (0, 1), width), tmp_path / "val" / "masks" / f"{number}.png")
    plain_folder(tmp_path / "train", 2)
    data = folder(tmp_path, eval_batch_size=2, mask_classes=3)
    data.setup()
    (batch,) = data.val_dataloader()
    assert batch["mask"].shape == (2, 32, 96)
    assert (batch["mask"][0, :, 40:] == 255).all()
    assert torch.isin(batch["mask"][1, :, :70], torch.tensor([0, 1])).all()


@pytest.mark.parametrize("path", [None, "nowhere"])
def test_without_a_folder(path: str | None) -> None:
    with pytest.raises(UserError, match=r"set task\.path"):
        SegmentationFolder(path=path).inspect()


def test_an_empty_folder_and_a_missing_mask_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no samples for train"):
        folder(tmp_path).inspect()
    plain_folder(tmp_path, 3)
    (tmp_path / "masks" / "1.png").unlink()
    with pytest.raises(UserError, match=r"1\.jpg has no mask .*masks.1\.png"):
        folder(tmp_path).inspect()


def test_one_image_alone_has_no_validation(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no samples for val"):
        folder(plain_folder(tmp_path, 1)).inspect()


@pytest.mark.parametrize(("name", "value"), [("mask_classes", 1), ("mask_classes", 256)])
def test_values_that_cannot_work_are_named(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"task\.{name} is {value}"):
        folder(tmp_path, **{name: value})
