"""Each way in which a file in the published layout can be wrong, said in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.data import Mosi
from equipoise.errors import UserError
from tests.data.multimodal.published_writing import Content, sentiment, write


def change(split: str, key: str, value: Any) -> Callable[[Content], None]:
    """Replace an array, by the value itself or by what a function makes of the array."""

    def apply(content: Content) -> None:
        content[split][key] = value(content[split][key]) if callable(value) else value

    return apply


def without(*keys: str) -> Callable[[Content], None]:
    """Leave out an array, or a split."""

    def apply(content: Content) -> None:
        *path, last = keys
        del (content[path[0]] if path else content)[last]

    return apply


def odd(split: str, key: str, *values: float) -> Callable[[Content], None]:
    """Write some values into an array."""

    def apply(content: Content) -> None:
        content[split][key].reshape(-1)[: len(values)] = values

    return apply


WRONG: dict[str, tuple[Callable[[Content], None], str]] = {
    "a missing split": (
        without("valid"), r"has no split 'valid', only train, test: fetch the published"),
    "a missing modality": (
        without("test", "vision"), r"'vision' of 'test' is missing; there is labels, id"),
    "missing labels": (without("train", "labels"), r"'labels' of 'train' is missing"),
    "a list": (change("train", "text", [1.0, 2.0]), r"'text' of 'train' is no array .* but a list"),
    "text": (change("valid", "audio", np.array(["a"])), r"'audio' of 'valid' is an array of text"),
    "objects": (
        change("test", "text", np.array([None], dtype=object)), r"holds an array of objects"),
    "two axes": (
        change("train", "vision", lambda a: a[:, 0]),
        r"'vision' of 'train' has the shape \[12, 4\], not \[samples, steps, features\]"),
    "no steps": (change("train", "vision", lambda a: a[:, :0]), r"has the shape \[12, 0, 4\]"),
    "fewer samples of one": (
        change("test", "audio", lambda a: a[:-2]),
        r"the samples of 'test' differ in number, text 6, audio 4, vision 6, labels 6, id 6"),
    "fewer labels": (
        change("valid", "labels", lambda a: a[1:]), r"'valid' differ in number, .* labels 3"),
    "fewer names": (change("valid", "id", lambda a: a[1:]), r"'valid' differ in number, .* id 3"),
    "names of names": (
        change("test", "id", [["one", ["two"]]] * 6), r"'id' of 'test' has names that are neither"),
    "another width": (
        change("valid", "text", lambda a: a[..., 1:]),
        r"'text' of 'valid' has 5 steps of 5 features, that of 'train' 5 steps of 6 features"),
    "other steps": (
        change("test", "audio", lambda a: a[:, 1:]), r"'audio' of 'test' has 8 steps of 3"),
    "NaN": (
        odd("train", "text", np.nan, np.nan),
        r"'text' of 'train' has values that are not finite \(2 NaN\): set task.non_finite=zero"),
    "infinities": (
        odd("valid", "vision", np.inf, -np.inf), r"'vision' of 'valid' .* \(1 inf, 1 -inf\)"),
    "what only -inf may be": (
        odd("test", "audio", -np.inf, np.nan), r"'audio' of 'test'.*\(1 NaN\)"),
    "NaN in labels": (
        odd("test", "labels", np.nan), r"'labels' of 'test' has 1 values that are not"),
    "labels of another shape": (
        change("train", "labels", lambda a: a[:, 0]),
        r"'labels' of 'train' has the shape \[12, 1\], not \[samples, 1, 1\] or \[samples, 4, 2\]"),
    "labels of another kind": (
        change("test", "labels", np.zeros((6, 4, 2))), r"'labels' of 'test' has labels of another"),
    "labels without a sample": (
        lambda content: content["train"].update({k: v[:0] for k, v in content["train"].items()}),
        r"the split 'train' has no samples"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(tmp_path: Path, case: str) -> None:
    content = sentiment()
    apply, message = WRONG[case]
    apply(content)
    with pytest.raises(UserError, match=message) as refusal:
        Mosi(path=str(write(tmp_path, content))).inspect()
    assert "\n" not in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no splits but a list"),
        (np.zeros(3), "holds no splits but an array"),
        ({}, "has no split 'train', only nothing"),
        (
            dict.fromkeys(("train", "valid", "test"), np.zeros(3)),
            "the split 'train' holds no arrays but an array",
        ),
    ],
)
def test_a_pickle_of_another_layout_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Mosi(path=str(write(tmp_path, content))).inspect()


def test_a_number_too_large_for_float32_is_infinite(tmp_path: Path) -> None:
    content = sentiment("float64")
    content["train"]["vision"][0, 0, 0] = 1e300
    with pytest.raises(UserError, match=r"\(1 inf\)"):
        Mosi(path=str(write(tmp_path, content))).inspect()
