"""Which classes a test confused, from two classes to a thousand, and where it was most wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from equipoise.report.confusion import (
    MOST_CELLS,
    MOST_NUMBERED,
    confusions,
    draw_confusion,
    draw_mistakes,
)

MATRIX, PAIRS = "confusion.png", "confused_pairs.png"
LABELS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def outcome(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Three samples of each class, of which the third is taken for the next class."""
    true = np.repeat(np.arange(classes), 3)
    return true, np.where(np.arange(len(true)) % 3 == 2, (true + 1) % classes, true)


@pytest.mark.parametrize(
    ("classes", "files"),
    [
        (2, [MATRIX]),
        (MOST_NUMBERED, [MATRIX]),
        (MOST_NUMBERED + 1, [MATRIX, PAIRS]),
        (MOST_CELLS + 1, [PAIRS]),
        (1000, [PAIRS]),
    ],
)
def test_few_classes_are_a_matrix_and_many_their_most_confused_pairs(
    classes: int, files: list[str], tmp_path: Path
) -> None:
    names = [f"name {number}" for number in range(classes)]
    drawn = draw_confusion(tmp_path, *outcome(classes), names)
    assert [picture.file for picture in drawn] == files
    assert sorted(path.name for path in tmp_path.glob("*.png")) == sorted(files)


def test_a_perfect_test_of_many_classes_has_no_pairs(tmp_path: Path) -> None:
    true = np.arange(100)
    assert draw_confusion(tmp_path, true, true, [str(label) for label in true]) == []


def test_the_diagonal_is_dark(tmp_path: Path) -> None:
    true = np.repeat(np.arange(4), 5)
    draw_confusion(tmp_path, true, true, ["a", "b", "c", "d"])
    with Image.open(tmp_path / MATRIX) as image:
        colours = {c: n for n, c in image.convert("RGB").getcolors(10**6) or []}
    dark, light = colours[8, 48, 107], colours[247, 251, 255]
    assert 2 < light / dark < 4  # of the cells, 12 are light, and 4 have a number on them


@settings(max_examples=50, deadline=None)
@given(LABELS)
def test_pairs_count_every_mistake_once(labels: list[tuple[int, int]]) -> None:
    true, predicted = np.array(labels).T
    pairs = confusions(true, predicted)
    assert sum(pair.samples for pair in pairs) == int((true != predicted).sum())
    counts = [pair.samples for pair in pairs]
    assert counts == sorted(counts, reverse=True)
    for pair in pairs:
        assert pair.samples == labels.count((pair.true, pair.predicted))
        assert pair.share == pair.samples / int((true == pair.true).sum())


@pytest.mark.parametrize(("samples", "channels"), [(1, 1), (7, 3), (12, 2)])
def test_the_most_wrong_samples_are_drawn(samples: int, channels: int, tmp_path: Path) -> None:
    mistakes = {
        "image": torch.randn(samples, channels, 6, 9),
        "true": torch.zeros(samples, dtype=torch.int64),
        "predicted": torch.ones(samples, dtype=torch.int64),
        "of_true": torch.rand(samples),
        "of_predicted": torch.rand(samples),
    }
    (picture,) = draw_mistakes(tmp_path, mistakes, ["$cat_{", "犬 of a very long name"])
    assert (tmp_path / picture.file).read_bytes().startswith(b"\x89PNG")
    assert draw_mistakes(tmp_path, {name: x[:0] for name, x in mistakes.items()}, []) == []
