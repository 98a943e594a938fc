"""Votes of neighbours that are found part by part, beside those of all pairs at once."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from benchmarks.nearest_neighbours import measured
from equipoise.errors import UserError
from equipoise.tasks import nearest_neighbours
from equipoise.tasks.nearest_neighbours import MemoryBank

CLASSES = 4


def sample(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 6, generator=generator)
    return features, torch.randint(0, CLASSES, (rows,), generator=generator)


def naive(
    features: Tensor, labels: Tensor, queries: Tensor, neighbours: int, temperature: float
) -> Tensor:
    """All pairs at once, in float64."""
    unit = [functional.normalize(x.double(), dim=1) for x in (queries, features)]
    near = (unit[0] @ unit[1].T).topk(min(neighbours, len(features)), dim=1)
    votes = functional.one_hot(labels[near.indices], CLASSES)
    return ((near.values / temperature).exp().unsqueeze(2) * votes).sum(dim=1)


@given(
    rows=st.integers(1, 60),
    queries=st.integers(0, 13),
    neighbours=st.integers(1, 70),
    similarities=st.integers(1, 300),
    at_once=st.integers(1, 15),
)
def test_parts_of_any_size_give_what_all_pairs_give(
    rows: int, queries: int, neighbours: int, similarities: int, at_once: int
) -> None:
    features, labels = sample(rows)
    asked, _ = sample(queries, seed=1)
    bank = MemoryBank(features, labels, CLASSES, neighbours, temperature=0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest_neighbours, "SIMILARITIES", max(similarities, at_once))
        patch.setattr(nearest_neighbours, "QUERIES", at_once)
        found = bank.scores(asked)
    expected = naive(features, labels, asked, neighbours, 0.2).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_equally_near_neighbours_all_vote_where_there_is_room() -> None:
    features = torch.tensor([[1.0, 0]] * 6 + [[0.0, 1]] * 3)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    bank = MemoryBank(features, labels, CLASSES, neighbours=6)
    expected = math.exp(2) * torch.tensor([[4.0, 2, 0, 0]])
    torch.testing.assert_close(bank.scores(torch.tensor([[5.0, 0]])), expected)
    fewer = MemoryBank(features, labels, CLASSES, neighbours=4).scores(torch.tensor([[5.0, 0]]))
    assert fewer[0, 2:].tolist() == [0, 0]
    assert float(fewer.sum()) == pytest.approx(4 * math.exp(2))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_compared_in_float32(kind: torch.dtype) -> None:
    features, labels = sample(30)
    asked, _ = sample(5, seed=1)
    rounded, queries = features.to(kind), asked.to(kind)
    with torch.autocast("cpu", torch.bfloat16):
        found = MemoryBank(rounded, labels, CLASSES, neighbours=7).scores(queries)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, naive(rounded, labels, queries, 7, 0.5).float())


def test_lengths_do_not_matter() -> None:
    features, labels = sample(20)
    asked, _ = sample(5, seed=1)
    lengths = torch.logspace(-3, 3, 20).unsqueeze(1)
    found = MemoryBank(lengths * features, labels, CLASSES, 5).scores(1e4 * asked)
    torch.testing.assert_close(found, MemoryBank(features, labels, CLASSES, 5).scores(asked))


def test_unlabelled_and_infinite_rows_do_not_vote() -> None:
    features, labels = sample(20)
    asked, _ = sample(3, seed=1)
    expected = MemoryBank(features[2:], labels[2:], CLASSES, 50).scores(asked)
    features[0, 3] = float("inf")
    labels[1] = -1
    bank = MemoryBank(features, labels, CLASSES, 50)
    torch.testing.assert_close(bank.scores(asked), expected)
    asked[1, 0] = float("nan")
    assert bank.scores(asked).isnan().tolist() == [[row == 1] * CLASSES for row in range(3)]


def test_equal_features_vote_for_the_most_frequent_class() -> None:
    bank = MemoryBank(torch.zeros(5, 3), torch.tensor([0, 1, 1, 1, 2]), CLASSES)
    assert bank.scores(torch.zeros(2, 3)).tolist() == [[1, 3, 1, 0]] * 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"neighbours": 0}, "0 neighbours cannot vote"),
        ({"temperature": 0.0}, "temperature of the nearest neighbours is 0: set it to"),
        ({"temperature": float("nan")}, "set it to 0.0125 or more"),
        ({"labels": torch.full((3,), -1)}, "no training sample can serve"),
        ({"features": torch.full((3, 2), float("nan"))}, "no training sample can serve"),
        ({"labels": torch.tensor([0, 1, 4])}, "a neighbour has the label 4: use labels 0 to 3"),
    ],
)
def test_what_cannot_work_is_refused(changed: dict[str, object], message: str) -> None:
    settings = {"features": torch.ones(3, 2), "labels": torch.arange(3), "classes": CLASSES}
    with pytest.raises(UserError, match=message):
        MemoryBank(**{**settings, **changed})  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_bank_of_50000_needs_less_than_one_and_a_half_gigabytes() -> None:
    _, megabytes, _ = measured("in parts")
    assert megabytes < 1500
