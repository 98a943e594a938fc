"""A vocabulary cut into clusters of falling frequency."""

from __future__ import annotations

from collections.abc import Sequence


class VocabularyClusters:
    """The symbols 0 .. vocabulary - 1, the most frequent first, cut at `cutoffs`.

    Cluster i holds the symbols from `first[i]` up to, not including, `end[i]`. Cut-offs at or
    beyond the vocabulary are dropped, so that one list serves every vocabulary.
    """

    def __init__(self, vocabulary: int, cutoffs: Sequence[int] = ()) -> None:
        """Cut; raises ValueError where the vocabulary is empty or the cut-offs do not rise."""
        if vocabulary < 1:
            raise ValueError(f"a vocabulary has at least one symbol, not {vocabulary}")
        if any(a >= b for a, b in zip([0, *cutoffs], cutoffs, strict=False)):
            raise ValueError(f"cutoffs must rise from 1 or more, got {list(cutoffs)}")
        self.vocabulary = vocabulary
        self.cutoffs = tuple(cutoff for cutoff in cutoffs if cutoff < vocabulary)
        self.first = (0, *self.cutoffs)
        self.end = (*self.cutoffs, vocabulary)

    def __len__(self) -> int:
        return len(self.end)

    @property
    def sizes(self) -> list[int]:
        """The number of symbols of each cluster."""
        return [end - first for first, end in zip(self.first, self.end, strict=True)]

    def widths(self, width: int, divisor: int) -> list[int]:
        """The embedding width of each cluster, width // divisor^i.

        Raises ValueError where nothing is left of it.
        """
        if divisor < 1:
            raise ValueError(f"divisor must be at least 1, it is {divisor}")
        widths = [width // divisor**index for index in range(len(self))]
        if widths[-1] < 1:
            raise ValueError(
                f"an embedding of width {width} divided by {divisor} for each further cluster "
                f"leaves nothing for cluster {len(self)}: use fewer cutoffs or a smaller divisor"
            )
        return widths
