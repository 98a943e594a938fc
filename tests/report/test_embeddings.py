"""Pictures of correlations and of features, of ordinary and of degenerate ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from equipoise.report.embeddings import (
    HUES,
    MARKERS,
    _mark,
    draw_correlation,
    draw_projection,
    in_blocks,
    projected,
)

NAMES = ["bird", "cost in $", "deer"]


@pytest.mark.parametrize("size", [1, 2, 16, 300])
def test_a_correlation_is_drawn(size: int, tmp_path: Path) -> None:
    picture = draw_correlation(torch.eye(size), tmp_path / "correlation.png")
    assert picture.file == "correlation.png"
    assert (tmp_path / picture.file).stat().st_size > 5000


def test_correlations_without_numbers_and_beyond_the_scale_are_drawn(tmp_path: Path) -> None:
    for value in (float("nan"), 1.2):
        draw_correlation(torch.full((4, 4), value), tmp_path / "correlation.png")
        assert (tmp_path / "correlation.png").stat().st_size > 5000


def test_a_small_matrix_is_left_as_it_is() -> None:
    matrix = np.random.default_rng(0).normal(size=(7, 7))
    np.testing.assert_allclose(in_blocks(matrix, 7), matrix)


@pytest.mark.parametrize(("size", "most", "blocks"), [(12, 4, 4), (13, 4, 4), (9, 4, 3)])
def test_blocks_are_means_and_those_of_the_diagonal_of_it_alone(
    size: int, most: int, blocks: int
) -> None:
    matrix = np.random.default_rng(0).normal(size=(size, size))
    found = in_blocks(matrix, most)
    assert found.shape == (blocks, blocks)
    side = -(-size // most)
    parts = [slice(k * side, (k + 1) * side) for k in range(blocks)]
    for i, row in enumerate(parts):
        for j, column in enumerate(parts):
            block = matrix[row, column]
            expected = np.diag(block).mean() if i == j else block.mean()
            assert found[i, j] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (torch.randn(40, 6), torch.arange(40) % 5 - 1),
        (torch.randn(3, 6), torch.arange(3)),
        (torch.randn(3, 6), None),
        (torch.randn(1, 6), torch.tensor([2])),
        (torch.randn(0, 6), None),
        (torch.randn(6, 1), torch.full((6,), -1)),
        (torch.full((12, 6), 0.3), torch.arange(12) % 3),
        (torch.full((12, 6), float("nan")), torch.arange(12) % 3),
        (1e30 * torch.randn(12, 6), torch.arange(12) % 3),
    ],
)
def test_a_projection_is_drawn(features: Tensor, labels: Tensor | None, tmp_path: Path) -> None:
    picture = draw_projection(features, labels, NAMES, tmp_path / "features.png")
    assert (tmp_path / picture.file).stat().st_size > 3000


def test_at_most_a_thousand_points_are_drawn_of_those_that_are_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        "equipoise.report.embeddings.projected", lambda rows: seen.append(rows) or rows[:, :2]
    )
    features = torch.arange(1500.0).unsqueeze(1).expand(-1, 3).clone()
    features[1499, 0] = float("inf")
    picture = draw_projection(features, torch.arange(1500) % 30, [], tmp_path / "features.png")
    assert picture.caption.startswith("Features of 1000 test samples")
    assert (len(seen[0]), seen[0][0, 0], seen[0][-1, 0]) == (1000, 0, 1498)


def test_groups_remain_groups_and_a_repetition_is_the_same() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 15)
    features = 20 * np.eye(3)[groups] + generator.normal(size=(45, 3))
    points = projected(features)
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag([np.inf] * 45)
    assert (groups[distances.argmin(axis=1)] == groups).all()
    np.testing.assert_array_equal(projected(features), points)


def test_few_points_keep_their_distances() -> None:
    features = np.random.default_rng(0).normal(size=(3, 8))
    points = projected(features)
    pairs = [(0, 1), (0, 2), (1, 2)]
    found = [np.linalg.norm(points[i] - points[j]) for i, j in pairs]
    true = [np.linalg.norm(features[i] - features[j]) for i, j in pairs]
    np.testing.assert_allclose(np.divide(found, true), found[0] / true[0])


def test_classes_have_marks_of_their_own() -> None:
    count = len(HUES) * len(MARKERS)
    assert len({(_mark(k, [])["color"], _mark(k, [])["marker"]) for k in range(count)}) == count
    assert _mark(1, NAMES)["label"] == r"cost in \$"
    assert _mark(5, NAMES)["label"] == "5"
