"""Decoding real files of every kind that ImageNet holds, and of damaged ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from equipoise.data.images.encoded import decode_rgb, image_size
from equipoise.data.images.labelled import ImageFolder
from equipoise.errors import UserError
from tests.data.images.segmentation_files import png_of_sixteen_bits

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


ORIENTATIONS = range(1, 9)


def as_shown(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The table of the EXIF standard: where row 0 and column 0 of the stored pixels are shown."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)  # row 0 becomes the left or the right edge
    upside_down = orientation in (3, 4, 7, 8)
    mirrored = orientation in (2, 3, 6, 7)
    pixels = pixels[::-1] if upside_down else pixels
    return pixels[:, ::-1] if mirrored else pixels


def oriented(image: Image.Image, file: Path, orientation: int) -> Path:
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(file, exif=exif, **({"quality": 95} if file.suffix == ".jpg" else {}))
    return file


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_photograph_is_upright(
    folder_with: FolderWith,
    random_image: Callable[..., Image.Image],
    name: str,
    orientation: int,
) -> None:
    source, file = folder_with(name)
    corners = random_image(0, 3, 2).resize((24, 16), Image.Resampling.BOX)
    oriented(corners, file, orientation)
    expected = as_shown(np.array(corners), orientation)
    pixels = decode_rgb(source, 0).permute(1, 2, 0).numpy()
    assert pixels.shape == expected.shape
    assert image_size(file) == expected.shape[1::-1]
    assert np.abs(pixels.astype(int) - expected).mean() < 12


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_data_leave_a_photograph_as_it_is(
    folder_with: FolderWith, random_image: Callable[..., Image.Image], exif: bytes
) -> None:
    source, file = folder_with("a.jpg")
    random_image(0, 24, 16).save(file, exif=exif)
    assert decode_rgb(source, 0).shape == (3, 16, 24)
    assert image_size(file) == (24, 16)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_scaled(folder_with: FolderWith, name: str) -> None:
    source, file = folder_with(name)
    stored = np.linspace(0, 65535, 24 * 16).round().astype(np.uint16).reshape(16, 24)
    Image.fromarray(stored).save(file)
    pixels = decode_rgb(source, 0).numpy()
    assert (pixels == np.round(stored / 257)).all()


def test_colours_of_sixteen_bits_are_scaled(folder_with: FolderWith) -> None:
    source, file = folder_with("a.png")
    stored = np.random.default_rng(0).integers(0, 65536, (16, 24, 3)).astype(np.uint16)
    file.write_bytes(png_of_sixteen_bits(stored))
    pixels = decode_rgb(source, 0).permute(1, 2, 0).numpy()
    assert np.abs(pixels - stored / 257).max() <= 1


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_whose_white_is_not_known_are_named(folder_with: FolderWith, mode: str) -> None:
    source, file = folder_with("a.tif")
    Image.new(mode, (24, 16), 300).save(file)
    with pytest.raises(UserError, match=r"a\.tif cannot be decoded \(it holds 32-bit numbers"):
        decode_rgb(source, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_shows_black_and_white(folder_with: FolderWith, mode: str) -> None:
    name = "a.tif" if mode in ("PA", "CMYK", "YCbCr") else "a.png"
    source, file = folder_with(name)
    image = Image.new("RGB", (24, 16), "white")
    image.paste("black", (0, 0, 12, 16))
    (image.convert("P") if mode == "PA" else image).convert(mode).save(file)
    pixels = decode_rgb(source, 0)
    assert pixels[:, :, 0].max() <= 2
    assert pixels[:, :, -1].min() >= 253


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tif"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_damaged_file_is_read_or_named(folder_with: FolderWith, name: str) -> None:
    source, file = folder_with(name)
    contents = file.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(contents)
        for place in generator.integers(0, min(len(contents), 400), 4):
            damaged[place] = generator.integers(0, 256)
        file.write_bytes(damaged)
        said = what_is_said(source)
        assert said == "" or str(file) in said
        assert "0x" not in said.replace(str(file), "")
        assert "\n" not in said


def what_is_said(source: ImageFolder) -> str:
    """The sentence about an image that cannot be decoded; nothing about one that can."""
    try:
        decode_rgb(source, 0)
    except UserError as error:
        return str(error)
    return ""
