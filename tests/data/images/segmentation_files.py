"""Small folders of images with masks, written anew for the tests that read them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 32
STREET_IDS = (7, 8, 11, 23, 26, 0, 3)


def noise(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """An RGB image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def blocks(
    seed: int, ids: tuple[int, ...], width: int = WIDTH, height: int = HEIGHT
) -> Image.Image:
    """A mask of square blocks, all of `ids` among them."""
    shape = (-(-height // 4), -(-width // 4))
    chosen = np.random.default_rng(seed).choice(np.array(ids, dtype=np.uint8), shape)
    chosen.flat[: len(ids)] = ids
    mask = chosen.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    return Image.fromarray(mask.astype(np.uint8))


def write(image: Image.Image, file: Path) -> Path:
    """Save an image, making its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def masked(root: Path, masks: list[tuple[int, ...]]) -> Path:
    """A folder with an image and a mask of the given numbers for each of `masks`."""
    for number, ids in enumerate(masks):
        write(noise(number), root / "images" / f"{number}.png")
        write(blocks(number, ids), root / "masks" / f"{number}.png")
    return root


def street_folder(root: Path, train: int = 4, val: int = 2) -> Path:
    """A folder in the published layout of Cityscapes, with test images but no test masks."""
    for split, count in (("train", train), ("val", val), ("test", 1)):
        for number in range(count):
            stem = f"{split}/ulm/ulm_{number:06d}_000019"
            write(noise(number), root / "leftImg8bit" / f"{stem}_leftImg8bit.png")
            if split != "test":
                mask = root / "gtFine" / f"{stem}_gtFine_labelIds.png"
                write(blocks(number, STREET_IDS), mask)
    return root


def plain_folder(root: Path, count: int = 10, ids: tuple[int, ...] = (0, 1, 2, 255)) -> Path:
    """A folder with images/<stem>.jpg and masks/<stem>.png."""
    for number in range(count):
        write(noise(number), root / "images" / f"{number}.jpg")
        write(blocks(number, ids), root / "masks" / f"{number}.png")
    return root


def png_of_sixteen_bits(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG file of RGB in 16 bits, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )  # fmt: skip
