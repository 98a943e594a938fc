"""Named sizes: the entry of a family's table that a name stands for, with fields replaced.

Image models have one table per range of image sizes, token models a single table whose `auto`
depends on the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeVar

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
LARGEST_VOCABULARY = {"tiny": 1000, "small": 100_000}  # of characters, and of most texts
PUBLISHED = "wikitext103"


def image_family(image_size: int) -> Family:
    """The range of images of `image_size` pixels a side: up to 16, up to 64, or above."""
    if image_size <= LARGEST_MINIATURE:
        return "miniature"
    return "thumbnail" if image_size <= LARGEST_THUMBNAIL else "photograph"


def size_for_images(
    name: SizeName, image_size: int, sizes: Mapping[Family, Mapping[str, Shape]]
) -> Shape:
    """The entry `name` for images of `image_size` pixels a side.

    `auto` is tiny for miniatures, large for thumbnails and small for photographs. Raises
    ValueError when there is no such name.
    """
    family = image_family(image_size)
    return named_size(AUTOMATIC[family] if name == "auto" else name, sizes[family])


def size_for_vocabulary(name: str, vocabulary: int, sizes: Mapping[str, Shape]) -> Shape:
    """The entry `name` of `sizes`; `auto` goes by the size of the vocabulary.

    `auto` is tiny for up to 1,000 symbols (characters), small for up to 100,000 and the published
    size of WikiText-103 above. Raises ValueError when there is no such name.
    """
    if name == "auto":
        fitting = (n for n, largest in LARGEST_VOCABULARY.items() if vocabulary <= largest)
        name = next(fitting, PUBLISHED)
    return named_size(name, sizes)


def named_size(name: str, sizes: Mapping[str, Shape]) -> Shape:
    """The entry `name`. Raises ValueError, which lists the names, when there is none."""
    if name not in sizes:
        raise ValueError(f"there is no size {name!r}; choose auto, {', '.join(sizes)}")
    return sizes[name]


def adapted_size(size: Shape, **fields: Any) -> Shape:
    """A size, a dataclass, with those of `fields` that are not None in place of its own."""
    changes = {name: value for name, value in fields.items() if value is not None}
    return replace(size, **changes)  # type: ignore[type-var]
