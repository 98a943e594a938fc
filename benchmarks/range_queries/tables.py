"""The tables: which populations, domains, epsilons and ranges; one cell after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas

from benchmarks.range_queries.errors import Cell, measure
from benchmarks.range_queries.methods import (
    FIVE_ATTRIBUTES,
    ONE_ATTRIBUTE,
    THREE_ATTRIBUTES,
    TWO_ATTRIBUTES,
)
from benchmarks.range_queries.populations import (
    DISTRIBUTIONS,
    Study,
    binned,
    half_ranges,
    population,
    random_ranges,
    two_attributes,
)
from equipoise.privacy import Mechanism

QUERIES = 200
EPSILONS = (0.1, 0.5, 1.0, 1.5, 2.0)
PLANE_EPSILONS = (0.1, 0.3, 0.5, 0.9, 1.1, 1.5)
MANY_USERS = 1_000_000


@dataclass(frozen=True)
class Table:
    """A title, the columns, and what makes the rows; `length` rows are to come."""

    title: str
    methods: Mapping[str, Mechanism]
    length: int
    rows: Callable[[], Iterator[Cell]]


def one_attribute(
    users: int, size: int, repeats: int, methods: Mapping[str, Mechanism] = ONE_ATTRIBUTE
) -> Table:
    """Six distributions of one attribute, five epsilons, ranges with random ends."""

    def rows() -> Iterator[Cell]:
        for name, epsilon in product(DISTRIBUTIONS, EPSILONS):
            generator = np.random.default_rng([users, DISTRIBUTIONS.index(name), int(10 * epsilon)])
            values = population(name, users, size, generator)
            study = Study(values, (size,), random_ranges(QUERIES, size, 1, generator))
            yield measure(name, epsilon, methods, study, repeats, generator)

    title = f"One attribute, {users:,} people, {size} values"
    return Table(title, methods, len(DISTRIBUTIONS) * len(EPSILONS), rows)


def two_attribute_plane(repeats: int, users: int = MANY_USERS, size: int = 256) -> Table:
    """Correlated Gaussian and Laplace pairs, six epsilons, rectangles with random corners."""

    def rows() -> Iterator[Cell]:
        for seed, name in enumerate(("gaussian", "laplace")):
            generator = np.random.default_rng([2, seed])
            values = two_attributes(name, users, size, generator)
            study = Study(values, (size, size), random_ranges(QUERIES, size, 2, generator))
            for epsilon in PLANE_EPSILONS:
                yield measure(name, epsilon, TWO_ATTRIBUTES, study, repeats, generator)

    title = f"Two attributes, {users:,} people, {size}^2 values"
    return Table(title, TWO_ATTRIBUTES, 2 * len(PLANE_EPSILONS), rows)


def many_attributes(attributes: int, repeats: int, users: int = MANY_USERS) -> Table:
    """Independent Laplace attributes of 64 values, epsilon 1, boxes with random corners."""
    methods = THREE_ATTRIBUTES if attributes == 3 else FIVE_ATTRIBUTES

    def rows() -> Iterator[Cell]:
        generator = np.random.default_rng([3, attributes])
        values = binned(generator.laplace(size=(users, attributes)), -8, 8, 64)
        ranges = random_ranges(QUERIES, 64, attributes, generator)
        study = Study(values, (64,) * attributes, ranges)
        yield measure("laplace", 1.0, methods, study, repeats, generator)

    return Table(f"{attributes} attributes, {users:,} people, 64^{attributes}", methods, 1, rows)


def people(path: Path, sizes: Mapping[str, int], repeats: int) -> Table:
    """Columns of a real table, each by itself, epsilon 1, every range over half of the values."""

    def rows() -> Iterator[Cell]:
        for seed, (column, size) in enumerate(sizes.items()):
            generator = np.random.default_rng([4, seed])
            values = pandas.read_parquet(path, columns=[column])[column].to_numpy()
            study = Study(values, (size,), half_ranges(size))
            yield measure(column, 1.0, ONE_ATTRIBUTE, study, repeats, generator)

    return Table(f"{path.name}, ranges over half of the values", ONE_ATTRIBUTE, len(sizes), rows)
