"""The sizes of the trellis networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

SizeName = Literal["auto", "tiny", "small", "medium", "ptb", "ptb_char", "wikitext103"]


@dataclass(frozen=True)
class Size:
    """The widths of a trellis network, its levels, and how its vocabulary is cut.

    The state has hidden_width + the output's width channels; embedding and output are both
    embedding_width wide. levels: of the explicit network. divisor, cutoffs: of the embedding and
    the softmax; no cut-off inside the vocabulary means a plain softmax. initial_range: first
    embeddings are drawn between minus and plus this number.
    """

    hidden_width: int
    embedding_width: int
    levels: int
    divisor: int = 1
    cutoffs: Sequence[int] = ()
    initial_range: float = 0.1


SPLIT = (2800, 20000, 76000)
"""Cut-offs that the published networks use for WikiText-103; smaller vocabularies drop some."""

# tiny, small and medium are our own, with embeddings that reach their narrow levels from the first
# step on; the others are published with TrellisNet (1810.06682).
SIZES: dict[str, Size] = {
    "tiny": Size(128, 64, 12, cutoffs=SPLIT, initial_range=1.0),
    "small": Size(256, 128, 24, cutoffs=SPLIT, initial_range=1.0),
    "medium": Size(512, 256, 40, cutoffs=SPLIT, initial_range=1.0),
    "ptb": Size(1000, 400, 58),
    "ptb_char": Size(1050, 200, 140),
    "wikitext103": Size(1600, 512, 75, cutoffs=SPLIT),
}
# Published with 1909.01377 for WikiText-103 alone; `levels` is that of its unrolled phase.
EQUILIBRIUM_SIZES: dict[str, Size] = {
    **SIZES,
    "wikitext103": replace(SIZES["wikitext103"], hidden_width=1500, embedding_width=500, levels=40),
}
