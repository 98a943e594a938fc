"""A folder of one's own images with masks."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from equipoise.data.images.segmentation_folder import SegmentationFolder
from equipoise.data.module import SplitName
from equipoise.errors import UserError
from tests.data.images.segmentation_files import blocks, masked, noise, plain_folder, write

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


def settled(root: Path, **arguments: Any) -> SegmentationFolder:
    """The data as a run builds them: what the files tell, put into the configuration."""
    return folder(root, **{**arguments, **folder(root, **arguments).inspect()})


def numbers_of(data: SegmentationFolder) -> set[int]:
    return {
        int(number)
        for name in SPLITS
        for row in range(len(data.find_files(name)))
        for number in data.find_files(name).read(row)[1].unique()
    }


BLACK_AND_WHITE = [(0, 255), (0,), (255, 0), (255,), (0, 255)]


@pytest.mark.parametrize("mask_classes", [None, 2])
def test_black_and_white_masks_are_two_classes(tmp_path: Path, mask_classes: int | None) -> None:
    root = masked(tmp_path, BLACK_AND_WHITE)
    data = settled(root, mask_classes=mask_classes)
    assert (data.mask_classes, data.mask_values) == (2, [0, 255])
    assert numbers_of(data) == {0, 1}
    _, mask = data.find_files("train").read(0)
    file = data.find_files("train").pairs[0].mask
    white = torch.from_numpy(np.array(Image.open(file)) == 255)
    assert torch.equal(mask.bool(), white)


def test_white_is_ignored_where_other_numbers_occur(tmp_path: Path) -> None:
    data = settled(masked(tmp_path, [*BLACK_AND_WHITE, (0, 1, 255)]))
    assert (data.mask_classes, data.mask_values) == (2, None)
    assert numbers_of(data) == {0, 1, 255}


def test_black_and_white_masks_are_no_three_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"two classes, but task\.mask_classes is 3: set it to 2"):
        folder(masked(tmp_path, BLACK_AND_WHITE), mask_classes=3).inspect()


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ((0, 128, 255), r"hold the numbers 0, 128, 255, .*_values=\[0,128,255\] \(or \[0,128\] if"),
        ((0, 64, 128, 192), r"task\.mask_values=\[0,64,128,192\].*task\.mask_classes=193"),
        ((0, 254), r"hold the numbers 0, 254"),
        ((100, 200), r"task\.mask_values=\[100,200\]"),
        ((0,), "hold no class number except 0, so there is nothing to learn"),
        ((255,), "hold no class number except none"),
        ((1, 255), "hold no class number except 1"),
    ],
)
def test_numbers_that_are_hardly_classes_are_named(
    tmp_path: Path, ids: tuple[int, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        folder(masked(tmp_path, [ids] * 4)).inspect()


def test_what_was_typed_settles_the_numbers(tmp_path: Path) -> None:
    root = masked(tmp_path, [(0, 128, 255)] * 4)
    three = settled(root, mask_values=[0, 128, 255])
    assert three.mask_classes == 3
    assert numbers_of(three) == {0, 1, 2}
    two = settled(root, mask_values=[128, 0])
    assert two.mask_classes == 2
    assert numbers_of(two) == {0, 1, 255}
    assert settled(root, mask_classes=129).mask_classes == 129
    with pytest.raises(UserError, match=r"png has the number 128, but those of task\.mask_values"):
        numbers_of(settled(root, mask_values=[0, 255]))


def test_sixteen_bits_name_numbers_beyond_255(tmp_path: Path) -> None:
    root = masked(tmp_path, [(0, 1)] * 4)
    for file in (root / "masks").iterdir():
        ids = np.array(Image.open(file)).astype(np.uint16) * 40000
        Image.fromarray(ids).save(file)
    with pytest.raises(UserError, match="has the class number 40000: they are 0 to 254"):
        folder(root).inspect()
    assert numbers_of(settled(root, mask_values=[0, 40000])) == {0, 1}


def test_soft_edges_are_named(tmp_path: Path) -> None:
    root = masked(tmp_path, [(0, 255)] * 4)
    for file in (root / "masks").iterdir():
        mask = np.zeros((200, 200), dtype=np.uint8)
        mask[:, 100:] = 255
        mask[0] = np.linspace(0, 254, 200)
        Image.fromarray(mask).save(file)
        Image.fromarray(mask).convert("RGB").save(root / "images" / file.name)
    with pytest.raises(UserError, match=r"soft edges.*or set task\.mask_classes=255"):
        folder(root).inspect()
    assert settled(root, mask_classes=255).mask_classes == 255


@pytest.mark.parametrize("values", [[], [0], [0, 0], [-1, 0]])
def test_values_of_masks_that_cannot_be(values: list[int]) -> None:
    with pytest.raises(UserError, match=r"task\.mask_values is \["):
        SegmentationFolder(mask_values=values)


def test_values_and_classes_that_disagree() -> None:
    with pytest.raises(UserError, match=r"names 2 numbers, but task\.mask_classes is 3"):
        SegmentationFolder(mask_values=[0, 255], mask_classes=3)


@pytest.mark.parametrize("layout", ["two folders", "one folder"])
def test_what_systems_leave_behind_is_no_sample(tmp_path: Path, layout: str) -> None:
    places = ("images", "masks") if layout == "two folders" else ("", "")
    mark = "" if layout == "two folders" else "_mask"
    for number in range(3):
        write(noise(number), tmp_path / places[0] / f"{number}.JPG")
        write(blocks(number, (0, 1)), tmp_path / places[1] / f"{number}{mark}.PNG")
    expected = stems(folder(tmp_path))
    for place in places:
        for name in ("._0.JPG", "._0_mask.PNG", ".DS_Store", "Thumbs.db"):
            (tmp_path / place / name).write_bytes(b"\0\5\x16\7")
        (tmp_path / place / ".ipynb_checkpoints").mkdir(exist_ok=True)
        (tmp_path / place / "folder.png").mkdir(exist_ok=True)
    assert stems(folder(tmp_path)) == expected
    assert folder(tmp_path).inspect() == {"mask_classes": 2}


@pytest.mark.parametrize(
    "twin", ["images/1.png", "images/1.JPG", "masks/1_mask.png", "masks/1.bmp"]
)
def test_two_files_of_one_name_are_refused(tmp_path: Path, twin: str) -> None:
    plain_folder(tmp_path, 4)
    first = next((tmp_path / twin).parent.glob("1.*"))
    write(blocks(0, (0, 1)), tmp_path / twin)
    with pytest.raises(UserError, match=rf"{first.name}.*have the same name"):
        folder(tmp_path).inspect()


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


@pytest.mark.parametrize("fits", [True, False])
def test_whole_images_have_sides_that_the_network_divides(tmp_path: Path, fits: bool) -> None:
    data = SegmentationFolder(path=str(tmp_path), pad_multiple=32)
    data.check_model(object())
    said = r"task\.pad_multiple=32 leaves .* set it to a multiple of 24"
    with nullcontext() if fits else pytest.raises(UserError, match=said):
        data.check_model(SimpleNamespace(image_multiple=16 if fits else 24))
