"""The sizes of the equilibrium transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SizeName = Literal["auto", "tiny", "small", "medium", "wikitext103"]


@dataclass(frozen=True)
class Size:
    """The widths of the transformer, and how its vocabulary is cut.

    embedding_width, divisor, cutoffs: of the adaptive embedding and softmax; no cut-off inside the
    vocabulary means a plain softmax.
    """

    width: int
    heads: int
    inner_width: int
    embedding_width: int
    divisor: int = 1
    cutoffs: Sequence[int] = ()


# The last one is published (scripts of 1909.01377 and 2106.14342); all others are our own.
SIZES: dict[str, Size] = {
    "tiny": Size(64, 4, 256, 64, cutoffs=(2000, 10000)),
    "small": Size(128, 4, 512, 128, cutoffs=(2000, 10000)),
    "medium": Size(256, 8, 2048, 256, cutoffs=(2000, 10000)),
    "wikitext103": Size(700, 10, 48000, 700, divisor=4, cutoffs=(20000, 40000, 200000)),
}
