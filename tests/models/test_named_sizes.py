"""Which entry of a table a name means, and what `auto` does."""

from __future__ import annotations

import pytest

from equipoise.models.sizes import Family, image_family, size_for_images, size_for_vocabulary

SIZES = {
    family: {name: f"{family} {name}" for name in ("tiny", "small", "large")}
    for family in ("miniature", "thumbnail", "photograph")
}
VOCABULARY_SIZES = {"tiny": 1, "small": 2, "wikitext103": 3}


@pytest.mark.parametrize(
    ("side", "family", "automatic"),
    [
        (8, "miniature", "tiny"),
        (16, "miniature", "tiny"),
        (17, "thumbnail", "large"),
        (64, "thumbnail", "large"),
        (65, "photograph", "small"),
        (224, "photograph", "small"),
    ],
)
def test_families(side: int, family: Family, automatic: str) -> None:
    assert image_family(side) == family
    assert size_for_images("auto", side, SIZES) == f"{family} {automatic}"
    assert size_for_images("tiny", side, SIZES) == f"{family} tiny"


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="auto, tiny, small, large"):
        size_for_images("xl", 8, SIZES)


@pytest.mark.parametrize(("vocabulary", "size"), [(100, 1), (1000, 1), (1001, 2), (267735, 3)])
def test_auto_goes_by_the_vocabulary(vocabulary: int, size: int) -> None:
    assert size_for_vocabulary("auto", vocabulary, VOCABULARY_SIZES) == size
    assert size_for_vocabulary("small", vocabulary, VOCABULARY_SIZES) == 2
