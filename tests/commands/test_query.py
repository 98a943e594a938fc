"""Range queries as text."""

from __future__ import annotations

import pytest

from equipoise.commands.query import Attribute, read_ranges, written
from equipoise.errors import UserError

AGE, HEIGHT = Attribute("age", 100), Attribute("body height", 10, [1.0, 2.0])


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("age in [10, 20)", [(10, 20), (0, 10)]),
        ("age in [10,20]", [(10, 21), (0, 10)]),
        ("age in (10, 20)", [(11, 20), (0, 10)]),
        ("  age in( 10 ,20 ]  ", [(11, 21), (0, 10)]),
        ("body height in [1.2, 1.71) AND age in [0, 100)", [(0, 100), (2, 7)]),
    ],
)
def test_brackets_and_limits(text: str, ranges: list[tuple[int, int]]) -> None:
    assert read_ranges(text, [AGE, HEIGHT]) == ranges


def test_ranges_are_written_as_they_were_understood() -> None:
    ranges = read_ranges("body height in [1.2, 1.71) and age in (3, 9]", [AGE, HEIGHT])
    text = written(ranges, [AGE, HEIGHT])
    assert text == "age in [4, 10) and body height in [1.2, 1.7)"
    assert read_ranges(text, [AGE, HEIGHT]) == ranges


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("age > 3", "cannot read 'age > 3': a condition looks like age in"),
        ("", "cannot read ''"),
        ("agee in [1, 2)", "no attribute 'agee'; did you mean age?"),
        ("xyz in [1, 2)", "no attribute 'xyz'; it has age, body height"),
        ("age in [1, 2) and age in [3, 4)", "two conditions"),
        ("age in [20, 10)", "must be non-empty"),
        ("age in [5, 5)", "must be non-empty"),
        ("age in [5, 4]", "must be non-empty"),
        ("age in [-1, 4)", "within [0, 100)"),
        ("age in [1, 101)", "within [0, 100)"),
        ("body height in [0.5, 1.5)", "within [1, 2)"),
        ("age in [1.5, 4)", "takes integers"),
        ("age in [a, 4)", "'a' is not a number"),
        ("age in [0, inf)", "outside the domain"),
        ("age in [nan, 4)", "outside the domain"),
    ],
)
def test_what_cannot_be_asked_is_said(text: str, said: str) -> None:
    with pytest.raises(UserError) as refusal:
        read_ranges(text, [AGE, HEIGHT])
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
