"""What fits an annotation: strictly, for a word is no number and true is no number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Optional

import pytest

from equipoise.annotations import Built
from equipoise.value_types import accepts, described, literals

NODE = {"_target_": "equipoise.equilibrium.Anderson"}


@pytest.mark.parametrize(
    ("hint", "fitting", "unfit"),
    [
        (int, [3, -1, 10**40], [True, 3.0, "3", None, [3], {}]),
        (float, [3, 0.5], [True, "0.5", None, [0.5]]),
        (bool, [True, False], [1, 0, "true", None]),
        (str, ["", "x"], [3, True, None, ["x"]]),
        (int | None, [3, None], [True, "x", 2.5]),
        (Optional[float], [2, 2.5, None], ["x", True]),  # noqa: UP045 - as Lightning writes it
        (Path, ["a/b", None], [3, ["a"]]),
        (Literal["a", 1], ["a", 1], ["b", True, 1.0, None]),
        (Sequence[int], [[], [1, 2]], [[1.5], [True], 3, "12", None, {}]),
        (Sequence[Literal["a"]], [["a"]], [["b"], "a"]),
        (tuple[int, ...], [[], [1, 2, 3]], [["x"], 3]),
        (tuple[float, float], [[0.9, 1]], [[0.9], [0.9, 0.9, 0.9], ["a", "b"]]),
        (list[list[float] | None], [[[0, 1], None]], [[0, 1]]),
        (Mapping[str, int], [{"a": 1}, {}], [{"a": "b"}, [1], 3]),
        (str | timedelta | None, ["00:01:00:00", None], [1e5, 3]),
        (float | Built, [0.5], ["x", True]),
        (Built, [NODE], [3, "x", None, [NODE]]),
        (Any, [3, "x", None, [1]], []),
    ],
)
def test_what_fits_and_what_does_not(hint, fitting, unfit):
    assert [value for value in fitting if not accepts(value, hint)] == []
    assert [value for value in unfit if accepts(value, hint)] == []


def test_a_node_is_judged_by_its_own_class():
    assert accepts(NODE, int)
    assert accepts([NODE], Sequence[Built])


def test_annotations_are_described_as_one_writes_them():
    assert described(int | None) == "int | None"
    assert described(str | Built | list[Built]) == "str | list[a class, by a _target_]"
    assert described(tuple[int, ...]) == "tuple[int, ...]"
    assert described(Sequence[int] | None) == "Sequence[int] | None"
    assert literals(Sequence[Literal["a", "b"]] | Literal[3] | None) == ["a", "b", 3]
