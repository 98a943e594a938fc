"""Reading one folder a class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from equipoise.data.image_folder import ImageFolder, class_folders
from equipoise.errors import UserError


def test_suffixes_in_any_case_and_labels_by_the_given_classes(
    tmp_path: Path, random_image: Callable[..., Image.Image]
) -> None:
    for name in ("b/1.JPEG", "b/2.jpg", "a/3.PNG", "a/notes.txt"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        if file.suffix == ".txt":
            file.write_text("no image")
        else:
            random_image(0, 4, 4).save(file)
    source = ImageFolder(tmp_path, ["a", "b", "c"])
    assert source.files == ["a/3.PNG", "b/1.JPEG", "b/2.jpg"]
    assert source.labels.tolist() == [0, 1, 1]
    assert class_folders(tmp_path) == ["a", "b"]
    assert source.describe(2) == str(tmp_path / "b" / "2.jpg")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train is missing"):
        class_folders(tmp_path / "train")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="empty has no images"):
        ImageFolder(tmp_path / "empty", ["a"])
    with pytest.raises(UserError, match="class a, which the training images have not"):
        ImageFolder(tmp_path / "empty", ["b"])
