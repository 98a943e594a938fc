"""One score that three modalities each see only in part; generated, no download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from equipoise.data.module import SPLITS, SplitName, check_fraction, refuse_below
from equipoise.data.multimodal.module import (
    MODALITIES,
    MultimodalDataModule,
    MultimodalSamples,
)
from equipoise.data.sampling import stream_seed

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

FEWEST_SEGMENTS, SEGMENTS = 5, 8
SCALE, GREATEST_LABEL = 3.0, 3.0
DISTRACTION = 0.5  # standard deviation of the columns that carry no information


class Rate(NamedTuple):
    """How a modality follows the path: rows per segment, its delay in segments, and its columns."""

    rows: int
    lag: float
    width: int


RATES = {"language": Rate(1, 0.0, 12), "audio": Rate(4, 0.5, 6), "vision": Rate(2, 0.25, 8)}


class Paths(NamedTuple):
    """The hidden score of each sample over time, and which modality sees it when.

    levels: (N, 8), standard normal; only the first `segments` (N,) belong to the sample. seen:
    (N, 8, 3), whether a modality sees a segment.
    """

    levels: Floats
    segments: NDArray[np.int64]
    seen: Bools


class Observation(NamedTuple):
    """What a modality shows of the paths.

    features: (N, T, F). sums, counts: (N, 8), the sum of its rows' noisy readings of each segment's
    level, and the number of these rows.
    """

    features: Floats
    sums: Floats
    counts: Floats


@dataclass(frozen=True, eq=False)
class GeneratedSamples(MultimodalSamples):
    """ceilings: the correlation of the labels with the best guess from what a modality shows.

    The key "all" holds that of the best guess from all three together.
    """

    ceilings: Mapping[str, float | None]


@dataclass(kw_only=True, eq=False)
class Trimodal(MultimodalDataModule):
    """The mean of a path of 5 to 8 random levels, which three streams show in parts.

    The label is three times that mean, at most 3 in size. Language, audio and vision have 1, 4 and
    2 rows for each level, and audio and vision lag behind by a half and a quarter of its duration.
    Each level belongs to one of the three, and each of the others also sees it with probability
    `overlap`; with probability `dropped` nobody sees it, except for three levels, including the
    first, which are never dropped. A row that sees nothing is zero, and so are the rows before a
    sample that has fewer than 8 levels. Every other row mixes the level, with normal noise of
    deviation `noise`, a one, and columns of pure noise, by a fixed rotation.

    So no single modality determines the label, and what they share must not be counted twice. All
    is a pure function of `seed`, and a smaller split is a prefix of a larger one.
    """

    batch_size: int = 64
    train_size: int = 4000
    val_size: int = 500
    test_size: int = 1000
    overlap: float = 0.15
    dropped: float = 0.05
    noise: float = 0.4

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        refuse_below(self, 1, "train_size", "val_size", "test_size")
        refuse_below(self, 0, "noise")
        check_fraction("overlap", self.overlap)
        check_fraction("dropped", self.dropped)

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Steps and width of each modality."""
        return {name: (SEGMENTS * rate.rows, rate.width) for name, rate in RATES.items()}

    def read_split(self, name: SplitName) -> GeneratedSamples:
        """Draw one split."""
        sizes = {"train": self.train_size, "val": self.val_size, "test": self.test_size}
        key = (self.seed, SPLITS.index(name))
        paths = draw_paths(sizes[name], self.overlap, self.dropped, *key)
        shown = {name: observe(paths, name, self.noise, *key) for name in MODALITIES}
        labels = np.clip(mean_level(paths.levels, paths), -GREATEST_LABEL, GREATEST_LABEL)
        parts = {**{name: [part] for name, part in shown.items()}, "all": list(shown.values())}
        guesses = {name: best_guess(paths, part, self.noise) for name, part in parts.items()}
        return GeneratedSamples(
            {name: torch.from_numpy(part.features) for name, part in shown.items()},
            torch.from_numpy(labels),
            {name: correlation(labels, guess) for name, guess in guesses.items()},
        )

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Notes about a split; `ceilings` are the best possible correlations."""
        facts = super().facts(name)
        return {**facts, "ceilings": dict(getattr(self.splits[name], "ceilings", {}))}


def draw_paths(count: int, overlap: float, dropped: float, *key: int) -> Paths:
    """Draw levels, and which modalities see each: one, sometimes more, sometimes none.

    The owners take turns along a random order of a sample's segments that begins with the first
    segment. The first three in that order are never dropped, so that every modality sees one and
    the start of every sample is seen.
    """
    random = _generators(*key, 0)
    levels = next(random).standard_normal((count, SEGMENTS), dtype=np.float32)
    segments = next(random).integers(FEWEST_SEGMENTS, SEGMENTS + 1, count)
    exists = np.arange(SEGMENTS) < segments[:, None]
    order = np.where(exists, next(random).random((count, SEGMENTS)), 2)
    order[:, 0] = -1
    place = order.argsort(axis=1).argsort(axis=1)
    owner = (place + next(random).integers(0, 3, (count, 1))) % 3
    shared = next(random).random((count, SEGMENTS, 3)) < overlap
    hidden = (next(random).random((count, SEGMENTS)) < dropped) & (place >= 3)
    seen = (owner[..., None] == np.arange(3)) | shared
    return Paths(levels, segments, seen & (exists & ~hidden)[..., None])


def observe(paths: Paths, modality: str, noise: float, *key: int) -> Observation:
    """What one modality shows of the paths."""
    rate, number = RATES[modality], MODALITIES.index(modality)
    random = _generators(*key, 1 + number)
    count, steps = len(paths.levels), SEGMENTS * rate.rows
    step = np.arange(steps) - (steps - paths.segments[:, None] * rate.rows)  # (N, T), in the sample
    segment = np.maximum((step + 0.5) / rate.rows - rate.lag, 0).astype(np.int64)
    visible = np.take_along_axis(paths.seen[..., number], segment, axis=1) & (step >= 0)
    content = np.ones((count, steps, rate.width), dtype=np.float32)
    content[..., 0] = np.take_along_axis(paths.levels, segment, axis=1)
    content[..., 0] += noise * next(random).standard_normal((count, steps), dtype=np.float32)
    distraction = (count, steps, rate.width - 2)
    content[..., 2:] = DISTRACTION * next(random).standard_normal(distraction, dtype=np.float32)
    content *= visible[..., None]
    of_segment = [visible & (segment == place) for place in range(SEGMENTS)]
    sums = np.stack([(content[..., 0] * rows).sum(axis=1) for rows in of_segment], axis=1)
    counts = np.stack([rows.sum(axis=1, dtype=np.float32) for rows in of_segment], axis=1)
    return Observation(content @ rotation(rate.width), sums, counts)


def rotation(width: int) -> Floats:
    """An orthogonal matrix (width, width), the same for every seed."""
    entries = next(_generators(width)).standard_normal((width, width))
    return np.linalg.qr(entries)[0].astype(np.float32)


def mean_level(levels: Floats, paths: Paths) -> Floats:
    """Three times the mean (N,) of the first levels (N, 8), those that a sample has."""
    exists = np.arange(SEGMENTS) < paths.segments[:, None]
    mean = (levels * exists).sum(axis=1) / paths.segments
    return (SCALE * mean).astype(np.float32)


def best_guess(paths: Paths, parts: list[Observation], noise: float) -> Floats:
    """The conditional mean (N,) of the label, before it is cut at 3, given what `parts` show.

    Given n rows of a level with noise of variance s^2, a standard normal one has the mean
    The guesser also knows which row shows which segment.
    """
    sums, counts = (np.sum([part[place] for part in parts], axis=0) for place in (1, 2))
    return mean_level(sums / np.where(counts > 0, counts + noise**2, 1), paths)


def correlation(labels: Floats, guess: Floats) -> float | None:
    """Pearson's correlation; None for a single sample, for which it is undefined."""
    return float(np.corrcoef(labels, guess)[0, 1]) if len(labels) > 1 else None


def _generators(*key: int) -> Any:
    """Generators that are pure functions of `key` and of how many were drawn before."""
    number = 0
    while True:
        yield np.random.default_rng(stream_seed(*key, number))
        number += 1
