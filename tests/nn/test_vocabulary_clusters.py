"""A vocabulary cut into clusters."""

from __future__ import annotations

import pytest

from equipoise.nn import VocabularyClusters


def test_clusters_cover_the_vocabulary() -> None:
    clusters = VocabularyClusters(200, [40, 80, 160])
    assert (clusters.first, clusters.end) == ((0, 40, 80, 160), (40, 80, 160, 200))
    assert clusters.sizes == [40, 40, 80, 40]
    assert clusters.widths(64, 4) == [64, 16, 4, 1]


@pytest.mark.parametrize("vocabulary", [30, 40])
def test_cutoffs_beyond_the_vocabulary_are_dropped(vocabulary: int) -> None:
    assert len(VocabularyClusters(vocabulary, [40, 80])) == 1


@pytest.mark.parametrize(
    ("vocabulary", "cutoffs", "said"),
    [(0, [], "at least one symbol"), (9, [3, 3], "must rise"), (9, [0, 3], "must rise")],
)
def test_nonsense_is_refused(vocabulary: int, cutoffs: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        VocabularyClusters(vocabulary, cutoffs)


def test_an_embedding_that_vanishes_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing for cluster 3"):
        VocabularyClusters(9, [2, 4]).widths(8, 4)
    with pytest.raises(ValueError, match="divisor must be at least 1"):
        VocabularyClusters(9, [2, 4]).widths(8, 0)
