"""ImageNet in its published folders and as a table."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch

from equipoise.data.images.imagenet import ImageNet
from equipoise.errors import UserError


def module(path: Path | str | None, num_workers: int = 0, classes: int = 2) -> ImageNet:
    given = None if path is None else str(path)
    arguments = {"batch_size": 4, "num_workers": num_workers, "classes": classes}
    return ImageNet(path=given, image_size=28, **arguments)


def test_the_published_folders(imagenet_folder: Path) -> None:
    data = module(imagenet_folder)
    data.setup()
    assert [len(data.splits[n]) for n in ("train", "val", "test")] == [6, 2, 2]
    assert data.class_names == ["n01440764", "n01443537"]
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 28, 28)
    assert [b["label"].tolist() for b in data.test_dataloader()] == [[0, 1]]


def test_a_table_with_a_validation_split(
    tmp_path: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    write_split(tmp_path / "hub" / "data", "train", table(6, seed=0, column="image", size=40))
    write_split(tmp_path / "hub" / "data", "validation", table(3, seed=9, column="image", size=40))
    data = module(tmp_path / "hub", classes=3)
    data.setup()
    assert [len(data.splits[n]) for n in ("train", "val", "test")] == [6, 3, 3]
    assert next(iter(data.val_dataloader()))["image"].shape == (3, 3, 28, 28)


def test_a_table_without_a_validation_split_is_named(
    tmp_path: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    write_split(tmp_path / "hub" / "data", "train", table(6, seed=0, column="image", size=40))
    with pytest.raises(UserError, match="no split 'validation', only train"):
        module(tmp_path / "hub", classes=3).setup("fit")


@pytest.mark.parametrize("classes", [1, 3, 1000])
def test_other_classes_than_the_network_has_outputs(imagenet_folder: Path, classes: int) -> None:
    data = module(imagenet_folder, classes=classes)
    for look in (data.inspect, lambda: data.setup("fit"), lambda: data.setup("test")):
        with pytest.raises(
            UserError, match=rf"train has 2 classes, but task\.classes is {classes}"
        ):
            look()
    assert module(imagenet_folder).inspect() == {}


@pytest.mark.parametrize("junk", [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir"])
def test_what_tools_leave_behind_is_no_class(imagenet_folder: Path, junk: str) -> None:
    before = module(imagenet_folder)
    before.setup()
    for split in ("train", "val"):
        (imagenet_folder / split / junk).mkdir()
        for synset in ("n01440764", "n01443537"):
            (imagenet_folder / split / synset / f"._{synset}_0.JPEG").write_bytes(b"\0\5\x16\7")
            (imagenet_folder / split / synset / junk).mkdir()
    data = module(imagenet_folder)
    data.setup()
    assert data.class_names == before.class_names
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        pairs = zip(getattr(before, loader)(), getattr(data, loader)(), strict=True)
        for expected, batch in pairs:
            assert torch.equal(batch["label"], expected["label"])
            assert torch.equal(batch["image"], expected["image"])


def test_a_class_without_images_is_named(imagenet_folder: Path) -> None:
    (imagenet_folder / "train" / "n00000000").mkdir()
    with pytest.raises(UserError, match=r"class folder .*n00000000 has no images"):
        module(imagenet_folder, classes=3).setup("fit")


def test_testing_opens_no_training_table(
    tmp_path: Path, table: Callable[..., datasets.Dataset], write_split: Callable[..., None]
) -> None:
    write_split(tmp_path / "data", "validation", table(3, seed=9, column="image", size=40))
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"not fetched")
    data = module(tmp_path, classes=3)
    data.inspect()
    data.setup("test")
    assert len(data.splits["test"]) == 3


def test_without_a_path_the_error_says_what_to_fetch_and_which_key_to_set() -> None:
    with pytest.raises(UserError, match=r"task\.path=ILSVRC/imagenet-1k"):
        module(None).setup("fit")


def test_what_is_missing_is_named(imagenet_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        module(tmp_path / "nowhere").setup("fit")
    (imagenet_folder / "val" / "n99999999").mkdir()
    with pytest.raises(UserError, match="class n99999999"):
        module(imagenet_folder).setup("validate")
    shutil.rmtree(imagenet_folder / "val")
    with pytest.raises(UserError, match="val is missing"):
        module(imagenet_folder).setup("fit")
    shutil.rmtree(imagenet_folder / "train")
    with pytest.raises(UserError, match="train is missing"):
        module(imagenet_folder).setup("fit")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_truncated_image_is_named(imagenet_folder: Path, num_workers: int) -> None:
    file = imagenet_folder / "train" / "n01443537" / "n01443537_2.JPEG"
    file.write_bytes(file.read_bytes()[:300])
    data = module(imagenet_folder, num_workers)
    data.setup("fit")
    with pytest.raises(UserError) as caught:
        list(data.train_dataloader())
    assert str(caught.value).startswith(f"The image {file} cannot be decoded")
    assert "Traceback" not in str(caught.value)


def test_workers_change_nothing(imagenet_folder: Path) -> None:
    drawn = []
    for num_workers in (0, 2):
        data = module(imagenet_folder, num_workers)
        data.setup("fit")
        drawn.append(torch.cat([batch["image"] for batch in data.train_dataloader()]))
    assert torch.equal(drawn[0], drawn[1])
