"""Images as stored on disk, and their decoding."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Hashable
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin
from torch import Tensor
from torchvision.transforms.v2 import functional

from equipoise.errors import DamagedRecord, UserError, limit, refuse_above

DECODING_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError,
    OverflowError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises for a file that is missing, damaged or too large."""

FORMATS = (
    "BMP", "GIF", "JPEG", "PNG", "PPM", TiffImagePlugin.TiffImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
)  # fmt: skip
"""The formats that are decoded, whatever a file is called. Pillow knows forty more, and for one of
them, EPS, it runs another program on the file's contents."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # we refuse these
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns an image upright, for each orientation in its EXIF data."""
ON_ITS_SIDE = (5, 6, 7, 8)


class EncodedFiles(Protocol):
    """Images that are still compressed, by row."""

    def encoded(self, row: int) -> bytes:
        """The file contents of the image in a row."""
        ...

    def describe(self, row: int) -> str:
        """Where the image of a row is stored, in the words of an error message."""
        ...


class LabelledPixels(Protocol):
    """Images of any size by row, with labels, -1 for an image without one."""

    classes: list[str]
    labels: Tensor

    def pixels(self, row: int) -> Tensor:
        """The image of a row, uint8 (C, H, W)."""
        ...


class EncodedImages(EncodedFiles, LabelledPixels, Protocol):
    """A labelled split whose images are still compressed: a folder, or a table."""

    def stamp(self, row: int) -> Hashable:
        """A value that changes when the contents of the image in a row do."""
        ...

    def pixels(self, row: int) -> Tensor:
        """Decode the image of a row to uint8 (3, H, W); raises UserError naming a damaged one."""
        return decode_rgb(self, row)


def decode_rgb(source: EncodedFiles, row: int) -> Tensor:
    """Decode an image, upright, to uint8 (3, H, W).

    Grey, palette and CMYK images become RGB, 16 bits are scaled to 8, and an EXIF orientation is
    applied. Raises UserError naming the image if it is missing, damaged or truncated, or holds
    numbers whose white level is unknown.
    """
    try:
        return _decoded(source, row)
    except DECODING_ERRORS as error:
        raise DamagedRecord(
            "image", source.describe(row), reason(error),
            "replace it or take it out of the dataset.",
        ) from error  # fmt: skip


def damage(source: EncodedFiles, row: int) -> str | None:
    """Why the image of a row cannot be decoded; None if it can."""
    try:
        _decoded(source, row)
    except DECODING_ERRORS as error:
        return reason(error)
    return None


def _decoded(source: EncodedFiles, row: int) -> Tensor:
    with opened_picture(io.BytesIO(source.encoded(row))) as image:
        return rgb_pixels(image)


def opened_picture(file: Path | BinaryIO) -> Image.Image:
    """A picture in one of `FORMATS` of which only the header has been read.

    Raises one of `DECODING_ERRORS`; TooLarge, one of them, if it has too many pixels.
    """
    most = limit("picture_pixels")
    if most > (Image.MAX_IMAGE_PIXELS or most):  # Pillow's own limit; it refuses twice as many
        Image.MAX_IMAGE_PIXELS = most
    image = Image.open(file, formats=FORMATS)
    refuse_above("picture_pixels", image.width * image.height, "it has")
    return image


def rgb_pixels(image: Image.Image) -> Tensor:
    """An image that Pillow has opened, upright, as uint8 (3, H, W).

    Raises one of `DECODING_ERRORS` if its data are damaged or hold numbers whose white level is
    unknown.
    """
    pixels: Tensor = functional.pil_to_tensor(_rgb(upright(image)))
    return pixels


def upright(image: Image.Image) -> Image.Image:
    """The image as viewers and annotation tools show it."""
    image.load()  # Pillow turns a TIFF file upright when it loads it
    transpose = UPRIGHT.get(orientation(image))
    return image if transpose is None else image.transpose(transpose)


def orientation(image: Image.Image) -> int:
    """The orientation of the EXIF data, 1 if there is none or the data are damaged.

    Photographs with damaged EXIF data are common (ImageNet has some), and viewers show them as
    they are stored.
    """
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DECODING_ERRORS:
        return 1


def image_size(file: Path) -> tuple[int, int]:
    """Width and height, as shown, from the header; raises UserError if there is none."""
    try:
        with opened_picture(file) as image:
            # A TIFF header gives the size as shown; EXIF data after a PNG's pixels are not read.
            stored = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
            on_its_side = not stored and orientation(image) in ON_ITS_SIDE
            width, height = image.size
    except DECODING_ERRORS as error:
        raise UserError(
            f"The image {file} cannot be opened ({reason(error)}): replace it or take it out."
        ) from error
    return (height, width) if on_its_side else (width, height)


def reason(error: BaseException) -> str:
    """Why a file could not be decoded, in one line and without Python's own wording."""
    if isinstance(error, UnidentifiedImageError):
        return "it is empty or no image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM"):
        image = _eight_bits(image)
    elif image.mode in ("I", "F"):
        raise ValueError(
            "it holds 32-bit numbers, whose white level is unknown; save it with 8 or 16 bits"
        )
    if "transparency" in image.info:
        image = image.convert("RGBA")  # transparent entries of a palette keep their colour
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """0 to 65535 -> 0 to 255, white to white; Pillow's own conversion clips."""
    numbers = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((numbers + 128) // 257).astype(np.uint8))
