"""Decoding real files of every kind that ImageNet holds, and of damaged ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from equipoise.data.encoded_images import decode_rgb
from equipoise.data.image_folder import ImageFolder
from equipoise.errors import UserError

FolderWith = Callable[[str], tuple[ImageFolder, Path]]


@pytest.fixture
def folder_with(tmp_path: Path, random_image: Callable[..., Image.Image]) -> FolderWith:
    """Return a class folder that holds one image of the given name, and the image's path."""

    def make(name: str) -> tuple[ImageFolder, Path]:
        file = tmp_path / "split" / "cat" / name
        file.parent.mkdir(parents=True)
        random_image(0, 24, 16).save(file)
        return ImageFolder(tmp_path / "split", ["cat"]), file

    return make


def test_a_png_comes_back_exactly(
    folder_with: FolderWith, random_image: Callable[..., Image.Image]
) -> None:
    source, _ = folder_with("a.png")
    expected = torch.from_numpy(np.array(random_image(0, 24, 16))).permute(2, 0, 1)
    assert torch.equal(decode_rgb(source, 0), expected)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_every_colour_mode_becomes_rgb(
    folder_with: FolderWith, mode: str, random_image: Callable[..., Image.Image]
) -> None:
    source, file = folder_with("a.JPEG")
    flat = random_image(0, 24, 16).resize((1, 1)).resize((24, 16))
    flat.convert(mode).save(file, quality=95)
    pixels = decode_rgb(source, 0)
    assert pixels.shape == (3, 16, 24)
    assert pixels.dtype == torch.uint8
    expected = torch.from_numpy(np.array(flat.convert(mode).convert("RGB"))).permute(2, 0, 1)
    assert (pixels.int() - expected.int()).abs().max() <= 6


def test_a_palette_png_becomes_rgb(
    folder_with: FolderWith, random_image: Callable[..., Image.Image]
) -> None:
    source, file = folder_with("a.png")
    random_image(0, 24, 16).convert("P").save(file)
    assert decode_rgb(source, 0).shape == (3, 16, 24)


@pytest.mark.parametrize("name", ["a.JPEG", "a.png"])
@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9])
def test_a_truncated_image_is_named(folder_with: FolderWith, name: str, kept: float) -> None:
    source, file = folder_with(name)
    contents = file.read_bytes()
    file.write_bytes(contents[: int(kept if kept > 1 else kept * len(contents))])
    with pytest.raises(UserError, match=name) as caught:
        decode_rgb(source, 0)
    assert str(file) in str(caught.value)


def test_a_file_that_is_no_image_and_one_that_is_gone_are_named(folder_with: FolderWith) -> None:
    source, file = folder_with("a.jpg")
    file.write_text("not found")
    with pytest.raises(UserError, match=r"a\.jpg cannot be decoded"):
        decode_rgb(source, 0)
    file.unlink()
    with pytest.raises(UserError, match=r"a\.jpg cannot be decoded"):
        decode_rgb(source, 0)
