"""Reading pairs of every kind that folders hold, and of damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from equipoise.data.images.masked_files import ImageAndMask, MaskedFiles, decode_mask
from equipoise.errors import UserError
from tests.data.images.segmentation_files import blocks, noise, png_of_sixteen_bits, write

IDS = (0, 1, 2, 255)


@pytest.fixture
def pair(tmp_path: Path) -> ImageAndMask:
    """An image and its mask."""
    image = write(noise(0), tmp_path / "a.png")
    return ImageAndMask(image, write(blocks(0, IDS), tmp_path / "a_mask.png"))


def read(pair: ImageAndMask) -> tuple[torch.Tensor, torch.Tensor]:
    return MaskedFiles([pair], lambda ids, file: ids).read(0)


def test_a_pair_comes_back_exactly(pair: ImageAndMask) -> None:
    image, mask = read(pair)
    assert torch.equal(image, torch.from_numpy(np.array(noise(0))).movedim(-1, 0))
    assert torch.equal(mask, torch.from_numpy(np.array(blocks(0, IDS))))
    assert image.dtype == mask.dtype == torch.uint8


@pytest.mark.parametrize("mode", ["P", "LA", "RGB", "RGBA", "I;16"])
def test_a_mask_in_any_mode_keeps_its_numbers(pair: ImageAndMask, mode: str) -> None:
    ids = np.array(blocks(0, IDS))
    mask = Image.fromarray(ids.astype(np.uint16) if mode == "I;16" else ids)
    if mode == "P":
        mask.putpalette([number * 3 % 256 for number in range(768)])
    elif mode != "I;16":
        mask = mask.convert(mode)
    assert mask.mode == mode
    mask.save(pair.mask)
    assert torch.equal(decode_mask(pair.mask), torch.from_numpy(ids.astype(np.int64)))


def test_a_mask_of_one_bit(pair: ImageAndMask) -> None:
    Image.fromarray(np.array(blocks(0, (0, 255)))).convert("1").save(pair.mask)
    assert set(decode_mask(pair.mask).unique().tolist()) == {0, 1}


def test_a_mask_in_colour_is_named(pair: ImageAndMask) -> None:
    noise(1).save(pair.mask)
    with pytest.raises(UserError, match=rf"{pair.mask.name} is in colour"):
        decode_mask(pair.mask)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_an_image_in_any_mode_becomes_rgb(pair: ImageAndMask, mode: str) -> None:
    file = pair.image.with_suffix(".tif" if mode == "CMYK" else ".png")
    noise(0).convert(mode).save(file)
    image, _ = read(pair._replace(image=file))
    assert image.shape == (3, 32, 40)


@pytest.mark.parametrize("kept", [0, 0.3, 0.7])
@pytest.mark.parametrize("which", ["image", "mask"])
def test_a_truncated_file_is_named(pair: ImageAndMask, which: str, kept: float) -> None:
    file: Path = getattr(pair, which)
    contents = file.read_bytes()
    file.write_bytes(contents[: int(kept * len(contents))])
    with pytest.raises(UserError, match=f"{file.name} cannot be decoded"):
        read(pair)


def test_a_file_that_is_gone_or_no_image_is_named(pair: ImageAndMask) -> None:
    pair.image.write_text("not found")
    with pytest.raises(UserError, match=rf"{pair.image.name} cannot be opened"):
        MaskedFiles([pair], lambda ids, file: ids).check_sizes()
    pair.mask.unlink()
    with pytest.raises(UserError, match=r"a_mask\.png cannot be decoded"):
        decode_mask(pair.mask)


def test_sizes_are_compared_by_their_headers(pair: ImageAndMask) -> None:
    files = MaskedFiles([pair], lambda ids, file: ids)
    files.check_sizes()
    write(blocks(0, IDS, height=28), pair.mask)
    for check in (files.check_sizes, lambda: files.read(0)):
        with pytest.raises(UserError, match=r"40 pixels wide and 28 high, its image a\.png is 40"):
            check()


def turn(pair: ImageAndMask, orientation: int) -> None:
    image = noise(0)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(pair.image, exif=exif)


@pytest.mark.parametrize(("orientation", "place"), [(3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_a_photograph_lies_as_its_mask_was_drawn(
    pair: ImageAndMask, orientation: int, place: tuple[int, int]
) -> None:
    """Annotation tools show the picture upright, and so is the mask that is drawn on it."""
    turn(pair, orientation)
    shown = blocks(0, IDS, *((32, 40) if orientation > 4 else (40, 32)))
    shown.save(pair.mask)
    MaskedFiles([pair], lambda ids, file: ids).check_sizes()
    image, mask = read(pair)
    assert torch.equal(mask, torch.from_numpy(np.array(shown)))
    assert image.shape[1:] == mask.shape
    first_stored = torch.from_numpy(np.array(noise(0)))[0, 0]
    assert torch.equal(image[(slice(None), *place)], first_stored)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_that_was_not_turned_with_its_photograph_is_named(
    pair: ImageAndMask, orientation: int
) -> None:
    turn(pair, orientation)
    for check in (MaskedFiles([pair], lambda ids, file: ids).check_sizes, lambda: read(pair)):
        with pytest.raises(UserError, match=r"32 wide and 40 high when rotated according to its"):
            check()


def test_a_mask_with_an_orientation_of_its_own_is_turned_too(pair: ImageAndMask) -> None:
    turn(pair, 6)
    mask = blocks(0, IDS)
    exif = mask.getexif()
    exif[0x0112] = 6
    mask.save(pair.mask, exif=exif)
    MaskedFiles([pair], lambda ids, file: ids).check_sizes()
    image, turned = read(pair)
    assert torch.equal(turned, torch.from_numpy(np.array(mask)).rot90(-1))
    assert torch.equal(image, torch.from_numpy(np.array(noise(0))).movedim(-1, 0).rot90(-1, (1, 2)))


def test_numbers_of_sixteen_bits_and_whole_ones_of_a_tiff_are_kept(pair: ImageAndMask) -> None:
    ids = np.arange(40 * 32).reshape(32, 40) * 51
    Image.fromarray(ids.astype(np.uint16)).save(pair.mask)
    assert torch.equal(decode_mask(pair.mask), torch.from_numpy(ids))
    tiff = pair.mask.with_suffix(".tif")
    for kind in (np.int32, np.float32):
        Image.fromarray(ids.astype(kind)).save(tiff)
        assert torch.equal(decode_mask(tiff), torch.from_numpy(ids))
    Image.fromarray(ids.astype(np.float32) / 2).save(tiff)
    with pytest.raises(UserError, match=r"a_mask\.tif has numbers that are not integers"):
        decode_mask(tiff)


def test_colours_of_sixteen_bits_would_lose_their_numbers(pair: ImageAndMask) -> None:
    ids = np.array(blocks(0, IDS)).astype(np.uint16)
    pair.mask.write_bytes(png_of_sixteen_bits(np.stack([ids] * 3, axis=-1)))
    with pytest.raises(UserError, match="several channels of 16 bits"):
        decode_mask(pair.mask)


@pytest.mark.parametrize("contents", [b"", b"\0\5\x16\7"])
def test_an_empty_mask_file_is_named(pair: ImageAndMask, contents: bytes) -> None:
    pair.mask.write_bytes(contents)
    with pytest.raises(UserError, match=r"a_mask\.png cannot be decoded \(it is empty or no image"):
        decode_mask(pair.mask)
