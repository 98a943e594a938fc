"""Images as they lie on the disk, and decoding them."""

from __future__ import annotations

import io
import struct
from typing import Protocol

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from equipoise.errors import UserError


class EncodedFiles(Protocol):
    """Images that are still compressed, by row."""

    def encoded(self, row: int) -> bytes:
        """Return the file contents of the image in a row."""
        ...

    def describe(self, row: int) -> str:
        """Return where the image of a row lies, in the words of an error message."""
        ...


class EncodedImages(EncodedFiles, Protocol):
    """A labelled split whose images are still compressed: a folder, or a table."""

    classes: list[str]
    labels: Tensor


def decode_rgb(source: EncodedFiles, row: int) -> Tensor:
    """Decode an image to uint8 (3, H, W); grey, palette and CMYK images become RGB.

    Raises UserError naming the image when it is missing, damaged or truncated.
    """
    try:
        with Image.open(io.BytesIO(source.encoded(row))) as image:
            pixels: Tensor = functional.pil_to_tensor(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(
            f"The image {source.describe(row)} cannot be decoded ({error}): "
            "replace it or take it out of the dataset."
        ) from error
    return pixels
