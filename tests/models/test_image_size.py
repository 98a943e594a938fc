"""The families of image sizes and what `auto` means in each."""

from __future__ import annotations

import pytest

from equipoise.models.image_size import Family, image_family, named_size

SIZES = {
    family: {name: f"{family} {name}" for name in ("tiny", "small", "large")}
    for family in ("miniature", "thumbnail", "photograph")
}


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
    assert named_size("auto", side, SIZES) == f"{family} {automatic}"
    assert named_size("tiny", side, SIZES) == f"{family} tiny"


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match="auto, tiny, small, large"):
        named_size("xl", 8, SIZES)
