"""The sizes of the kernel transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SizeName = Literal["auto", "tiny", "small", "iwslt14", "wikitext103"]


@dataclass(frozen=True)
class Size:
    """Widths and depths; cutoffs: of the adaptive softmax, which is plain if none is in range.

    encoder_layers: used if there is an encoder.
    """

    width: int
    heads: int
    inner_width: int
    layers: int
    encoder_layers: int
    cutoffs: Sequence[int] = ()


# The last two are published, in 1908.11775; the others are our own.
SIZES: dict[str, Size] = {
    "tiny": Size(128, 4, 256, 2, 2),
    "small": Size(160, 4, 640, 3, 3, cutoffs=(10000, 40000)),
    "iwslt14": Size(512, 4, 1024, 6, 6),
    "wikitext103": Size(410, 10, 2100, 16, 16, cutoffs=(20000, 40000, 200000)),
}
