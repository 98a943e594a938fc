"""Named sizes of the image models: which table of sizes fits images of a given side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

SizeName = Literal["auto", "tiny", "small", "large", "xl"]
Family = Literal["miniature", "thumbnail", "photograph"]
Shape = TypeVar("Shape")

LARGEST_MINIATURE = 16
LARGEST_THUMBNAIL = 64
AUTOMATIC: dict[Family, SizeName] = {
    "miniature": "tiny",
    "thumbnail": "large",
    "photograph": "small",
}


def image_family(image_size: int) -> Family:
    """Return what images of `image_size` pixels a side are: up to 16, up to 64, or above."""
    if image_size <= LARGEST_MINIATURE:
        return "miniature"
    return "thumbnail" if image_size <= LARGEST_THUMBNAIL else "photograph"


def named_size(
    name: SizeName, image_size: int, sizes: Mapping[Family, Mapping[str, Shape]]
) -> Shape:
    """Return the entry `name` for images of `image_size` pixels a side.

    `auto` is tiny for miniatures, large for thumbnails and small for photographs. Raises
    ValueError when there is no such name.
    """
    family = image_family(image_size)
    table = sizes[family]
    chosen = AUTOMATIC[family] if name == "auto" else name
    if chosen not in table:
        raise ValueError(f"There is no size {name!r}; choose auto, {', '.join(table)}.")
    return table[chosen]
