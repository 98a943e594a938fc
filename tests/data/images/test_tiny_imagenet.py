"""Tiny-ImageNet in its published folders and as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image

from equipoise.data import TinyImageNet
from equipoise.errors import UserError

WNIDS = ("n01443537", "n01629819")


@pytest.fixture
def tiny_folder(tmp_path: Path, random_image: Callable[[int, int, int], Image.Image]) -> Path:
    folder = tmp_path / "tiny-imagenet-200"
    lines = []
    for label, wnid in enumerate(WNIDS):
        (folder / "train" / wnid / "images").mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("boxes")
        for number in range(4):
            file = folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG"
            random_image(10 * label + number, 64, 64).save(file)
    (folder / "val" / "images").mkdir(parents=True)
    for number in range(3):
        random_image(90 + number, 64, 64).save(folder / "val" / "images" / f"val_{number}.JPEG")
        lines.append(f"val_{number}.JPEG\t{WNIDS[number % 2]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def module(path: Path, **settings: Any) -> TinyImageNet:
    given = {"val_fraction": 0.25, "classes": 2, "batch_size": 4, **settings}
    data = TinyImageNet(path=str(path), **given)
    data.setup()
    return data


def test_the_published_folders(tiny_folder: Path) -> None:
    data = module(tiny_folder)
    assert data.inspect() == {}
    assert [len(data.splits[n]) for n in ("train", "val", "test")] == [6, 2, 3]
    assert data.class_names == list(WNIDS)
    assert torch.bincount(data.read_split("val").labels).tolist() == [1, 1]
    (batch,) = data.test_dataloader()
    assert batch["label"].tolist() == [0, 1, 0]
    assert batch["image"].shape == (3, 3, 64, 64)
    whole = module(tiny_folder, val_fraction=0.0)
    assert [len(whole.splits[n]) for n in ("train", "val", "test")] == [8, 3, 3]


def test_no_picture_is_in_two_splits(tiny_folder: Path) -> None:
    data = module(tiny_folder)
    pixels = [
        split.pixels(row)
        for split in (data.read_split("train"), data.read_split("val"), data.read_split("test"))
        for row in range(len(split))
    ]
    assert len(torch.stack(pixels).flatten(1).unique(dim=0)) == 11


def test_a_table(
    tmp_path: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    write_split(tmp_path / "hub" / "data", "train", table(8, seed=0, column="image", size=64))
    write_split(tmp_path / "hub" / "data", "valid", table(3, seed=9, column="image", size=64))
    data = module(tmp_path / "hub", classes=3)
    assert data.inspect() == {}
    assert [len(data.splits[n]) for n in ("train", "val", "test")] == [6, 2, 3]
    with pytest.raises(UserError, match=r"has 3 classes, but task\.classes is 200"):
        module(tmp_path / "hub", classes=200)


def test_a_table_of_one_split_is_named(
    tmp_path: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    write_split(tmp_path / "hub" / "data", "train", table(8, seed=0, column="image", size=64))
    with pytest.raises(UserError, match="no split 'validation', only train"):
        module(tmp_path / "hub", classes=3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("val_0.JPEG n99999999 0 0 1 1\n", "names the class n99999999, which train lacks"),
        ("", "names no images"),
        (None, "cannot be read"),
    ],
)
def test_annotations_that_do_not_fit_are_named(
    tiny_folder: Path, text: str | None, said: str
) -> None:
    file = tiny_folder / "val" / "val_annotations.txt"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(UserError, match=rf"val_annotations\.txt {said}"):
        module(tiny_folder)


def test_other_folders_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 2 classes, but task\.classes is 200"):
        TinyImageNet(path=str(tiny_folder)).inspect()
    for wnid in WNIDS:
        folder = tiny_folder / "train" / wnid / "images"
        folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(UserError, match=r"has no images: put them in .*<class>.images\."):
        module(tiny_folder)
    with pytest.raises(UserError, match="does not exist"):
        module(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no images left for val"):
        module_of_few(tiny_folder)


def module_of_few(folder: Path) -> None:
    for wnid in WNIDS:
        (folder / "train" / wnid / "elsewhere").rename(folder / "train" / wnid / "images")
    module(folder, val_fraction=0.01)
