"""Drawn people, their true answers, and the blocks in which they are asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.data.sampling import BatchIndex, Shard
from equipoise.data.surveys.population import Population, cell_probabilities, draw_values
from equipoise.data.surveys.range_query import RangeQuery
from equipoise.data.surveys.workload import BlockIndices, SurveyGroups, random_ranges, ranges_of
from equipoise.errors import UserError

NAMES = ("zipf", "gaussian", "laplace", "cauchy", "bimodal", "uniform")


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_probabilities_of_their_cells(name: str) -> None:
    generator = np.random.default_rng(0)
    values = draw_values(name, 200_000, (16,), 0.0, generator)[:, 0]  # type: ignore[arg-type]
    expected = cell_probabilities(name, 16)  # type: ignore[arg-type]
    assert expected.sum() == pytest.approx(1, abs=1e-12)
    seen = np.bincount(values, minlength=16) / len(values)
    assert np.all(np.abs(seen - expected) < 5 * np.sqrt(expected / len(values)) + 1e-9)


def test_correlation_is_that_of_the_gaussian() -> None:
    values = draw_values("gaussian", 50_000, (256, 256), 0.8, np.random.default_rng(0))
    assert np.corrcoef(values.T)[0, 1] == pytest.approx(0.8, abs=0.01)
    with pytest.raises(UserError, match=r"must lie between -0\.5 and 1 for 3 attributes"):
        draw_values("gaussian", 5, (4, 4, 4), -0.7, np.random.default_rng(0))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=3), st.integers(0, 10**6))
def test_true_fractions_are_counts(domain: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = np.stack([generator.integers(0, size, 40) for size in domain], axis=1)
    people = Population(values, tuple(domain), tuple("abc"[: len(domain)]), (None,) * len(domain))
    ranges = random_ranges(tuple(domain), 10, generator)
    assert np.all(ranges[..., 0] < ranges[..., 1])
    assert np.all(ranges[..., 1] <= domain)
    for box, fraction in zip(ranges, people.fractions(ranges), strict=True):
        inside = ((values >= box[:, 0]) & (values < box[:, 1])).all(axis=1)
        assert fraction == pytest.approx(inside.mean(), abs=1e-12)


def test_ranges_of_a_volume_cover_it() -> None:
    ranges = ranges_of((100, 50), 30, 0.25, np.random.default_rng(0))
    lengths = ranges[..., 1] - ranges[..., 0]
    assert np.all(lengths == [50, 25])
    assert np.all(ranges[..., 0] >= 0)
    assert np.all(ranges[..., 1] <= [100, 50])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 4), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99)
)
def test_every_person_is_asked_once_whatever_the_number_of_processes(
    people: int, rounds: int, size: int, processes: int, seed: int
) -> None:
    groups = np.random.default_rng(seed).integers(0, rounds, (2, people))
    dataset = SurveyGroups(np.arange(people)[:, None], groups, rounds, size)
    asked: list[list[tuple[int, int]]] = [[], []]
    for number in range(rounds):
        lengths = set()
        for rank in range(processes):
            indices = BlockIndices(len(dataset), Shard(rank, processes))
            lengths.add(len(indices.batches()))
            for rows in indices.batches():
                batch = dataset[BatchIndex(number, rows)]
                assert torch.equal(batch["values"][:, 0], batch["index"])
                for survey, part in enumerate(batch["index"].split(batch["sizes"].tolist())):
                    asked[survey] += [(person, number) for person in part.tolist()]
        assert len(lengths) == 1
    for survey, seen in enumerate(asked):
        assert sorted(seen) == list(enumerate(groups[survey].tolist()))


def test_the_data_module_draws_the_same_people_again() -> None:
    first, again, other = (RangeQuery(users=500, seed=seed) for seed in (3, 3, 4))
    values = first.population().values
    assert np.array_equal(values, again.population().values)
    assert not np.array_equal(values, other.population().values)
    assert RangeQuery(users=5, domain=[8, 4]).inspect()["columns"] == ["attribute_0", "attribute_1"]
    assert RangeQuery(users=5, columns=["a", "b"], domain=8).inspect()["domain"] == [8, 8]


@pytest.mark.parametrize("settings_", [{"users": 0}, {"queries": 0}, {"batch_size": 0}])
def test_numbers_below_one_are_refused(settings_: dict[str, int]) -> None:
    with pytest.raises(UserError, match="set it to 1 or more"):
        RangeQuery(**settings_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"encoding": "latin-1"}, "task.encoding=latin-1 is for files"),
        ({"limits": [[0.0, 1.0]]}, "task.limits=.* is for files"),
        (
            {"path": "people.csv", "correlation": 0.5},
            "task.correlation=0.5 is for simulated people",
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(settings_: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        RangeQuery(**settings_)
