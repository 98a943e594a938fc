"""The data of a range-query survey: people, drawn or read from a file, and queries on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from equipoise.data.folders import file_stamp
from equipoise.data.loading import BatchLoader
from equipoise.data.module import refuse_below, shard_of
from equipoise.data.sampling import OrderedIndices, Shard, stream_seed
from equipoise.data.surveys.population import (
    DEFAULT_CELLS,
    Distribution,
    Limits,
    Population,
    cells_of,
    draw_values,
)
from equipoise.data.surveys.table import read_columns
from equipoise.data.surveys.workload import BlockIndices, RangeWorkload, SurveyGroups, workload
from equipoise.errors import UserError

DEFAULT_USERS = 100_000
PEOPLE, QUERIES = 0, 1  # which random numbers a stream provides


@dataclass(kw_only=True, eq=False)
class RangeQuery(LightningDataModule):
    """People with one or several integer attributes, and range queries with their true answers.

    path: a csv or parquet file with one row per person, or None for `users` (None: 100,000) draws
    from `distribution`. encoding: of a csv file; None: by its byte order mark, else UTF-8.
    columns: the attributes. domain: the number of values of each, or one number for all; None: 1024
    if values are drawn or binned, otherwise one more than the greatest. limits: [low, high] for
    each column to be binned, None for the others. users: how many people; from a file, drawn by the
    seed. queries: how many ranges with random ends, and how many of each of `volumes`.

    A training batch is a block of the people who answer in the current round (`SurveyGroups`),
    batch_size of each repetition; the task sets with `divide` who answers when. Nobody is in two
    blocks and nobody is left out, for any number of processes. test: the queries.
    """

    path: str | None = None
    encoding: str | None = None
    columns: list[str] | None = None
    domain: int | list[int] | None = None
    limits: list[Limits | None] | None = None
    distribution: Distribution = "gaussian"
    correlation: float = 0.0
    users: int | None = None
    queries: int = 200
    volumes: Sequence[float] = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9)
    batch_size: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__init__()
        refuse_below(self, 1, "users", "queries", "batch_size")
        for volume in self.volumes:
            if not 0 < volume <= 1:
                raise UserError(f"task.volumes: {volume} must lie above 0, up to 1")
        _check_source(self.path, self.encoding, self.limits, self.correlation)
        self.groups: SurveyGroups | None = None

    def inspect(self) -> dict[str, Any]:
        """The settings determined by the data: domain, columns, limits and number of people.

        Raises UserError if the data cannot be used.
        """
        people = self.population()
        return {
            "domain": list(people.domain),
            "columns": list(people.columns),
            "limits": list(people.limits) if any(people.limits) else None,
            "users": len(people),
        }

    def population(self) -> Population:
        """The people; raises UserError if the file or the settings cannot be used."""
        if self.path is None:
            return self._drawn()
        people = read_population(
            self.path, file_stamp(self.path), _frozen(self.columns), _frozen(self.domain),
            _frozen(self.limits), self.encoding,
        )  # fmt: skip
        return people if self.users is None else self._some_of(people, self.users)

    def setup(self, stage: str) -> None:
        """Draw or read the people, and ask the queries of them."""
        self.people = self.population()
        self.workload: RangeWorkload = workload(
            self.people, self.queries, self.volumes, self._generator(QUERIES)
        )

    def divide(self, groups: NDArray, rounds: int) -> None:
        """Record the round in which each person answers; groups (repeats, people)."""
        self.groups = SurveyGroups(self.people.values, groups, rounds, self.batch_size)

    def train_dataloader(self) -> BatchLoader:
        """The blocks of people, one round per epoch."""
        if self.groups is None:
            raise RuntimeError("call divide first: it sets who answers in which round")
        indices = BlockIndices(len(self.groups), shard_of(self))
        return BatchLoader(self.groups, indices, seed=self.seed, num_workers=0, pin_memory=False)

    def test_dataloader(self) -> BatchLoader:
        """All queries in one batch, the same for every process."""
        indices = OrderedIndices(len(self.workload), len(self.workload), Shard())
        return BatchLoader(self.workload, indices, seed=self.seed, num_workers=0, pin_memory=False)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Leave the values on the host, where they are counted."""
        return batch

    def _generator(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng(stream_seed(self.seed, purpose))

    def _drawn(self) -> Population:
        count = len(self.domain) if isinstance(self.domain, list) else 1
        names = self.columns or [f"attribute_{number}" for number in range(count)]
        sizes = tuple(size or DEFAULT_CELLS for size in _for_each(self.domain, len(names)))
        users = DEFAULT_USERS if self.users is None else self.users
        generator = self._generator(PEOPLE)
        values = draw_values(self.distribution, users, sizes, self.correlation, generator)
        return Population(values, sizes, tuple(names), (None,) * len(sizes))

    def _some_of(self, people: Population, users: int) -> Population:
        if users > len(people):
            raise UserError(f"task.users={users}: {self.path} has only {len(people)} rows")
        if users == len(people):
            return people
        rows = self._generator(PEOPLE).permutation(len(people))[:users]
        return Population(people.values[rows], people.domain, people.columns, people.limits)


@lru_cache(maxsize=1)
def read_population(
    path: str,
    _stamp: tuple[int, int],
    columns: tuple[str, ...] | None,
    domain: int | tuple[int, ...] | None,
    limits: tuple[tuple[float, ...] | None, ...] | None,
    encoding: str | None,
) -> Population:
    """The people of a file; the latest one is kept. Raises UserError as `RangeQuery` does."""
    numbers_of = read_columns(path, columns, encoding)
    sizes = _for_each(domain, len(numbers_of))
    ends = limits or (None,) * len(numbers_of)
    if len(ends) != len(numbers_of):
        raise UserError(
            f"task.limits needs [low,high], or null, for each of the {len(numbers_of)} columns"
        )
    parts = [
        cells_of(numbers, name, size, _ends(end, name))
        for (name, numbers), size, end in zip(numbers_of.items(), sizes, ends, strict=True)
    ]
    values = np.stack([cells for cells, _, _ in parts], axis=1)
    return Population(
        values, tuple(s for _, s, _ in parts), tuple(numbers_of), tuple(e for _, _, e in parts)
    )


def _check_source(path: str | None, encoding: Any, limits: Any, correlation: float) -> None:
    """Raise UserError for file settings without a file, and for those of drawn people with one."""
    for name, value in (("encoding", encoding), ("limits", limits)):
        if path is None and value is not None:
            raise UserError(f"task.{name}={value} is for files: set task.path too, or leave it out")
    if path is not None and correlation:
        raise UserError(
            f"task.correlation={correlation} is for simulated people: leave out it or task.path"
        )


def _for_each(domain: int | Sequence[int] | None, count: int) -> list[int | None]:
    """The domain of each column; a single number applies to all."""
    sizes: list[int | None] = []
    sizes += [domain] * count if domain is None or isinstance(domain, int) else domain
    if len(sizes) != count or not sizes:
        raise UserError(
            f"task.domain has {len(sizes)} size(s) for {count} column(s): give one for each, such "
            f"as task.domain=[{','.join(['1024'] * count)}]"
        )
    for size in sizes:
        if size is not None and size < 2:
            raise UserError(f"task.domain: an attribute needs 2 or more values, got {size}")
    return sizes


def _ends(limits: tuple[float, ...] | None, name: str) -> Limits | None:
    if limits is not None and len(limits) != 2:
        raise UserError(f"task.limits: column '{name}' needs a lower and an upper limit")
    return None if limits is None else list(limits)


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that calls can be cached by their arguments."""
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list) else value
