"""Pictures that cannot be decoded, found before a run begins, so that it knows how many it has."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

from tqdm import tqdm

from equipoise.data.images.encoded import EncodedImages, damage
from equipoise.errors import UserError

PROGRESS_AFTER_SECONDS = 2.0
MOST_THREADS = 16
AT_ONCE = 8
"""How many pictures a thread takes from the queue at once, since decoding one is short."""


class Unusable(NamedTuple):
    """A picture, or a folder where pictures should be, that cannot be trained on."""

    place: str
    reason: str
    kind: str = "picture"

    def refusal(self) -> UserError:
        """The error of a run that does not skip damaged pictures."""
        return UserError(
            f"The {self.kind} {self.place} cannot be used ({self.reason}): replace it, take it "
            "out of the dataset, or leave out all such with task.damaged=skip."
        )


known: dict[Hashable, str | None] = {}
"""The result for each picture, by its `stamp`: a run decodes before it begins and when it loads,
and the runs of a multirun read the same files."""


def find_damaged(sources: Sequence[EncodedImages]) -> Iterator[tuple[int, int, Unusable]]:
    """Decode every picture of some sources once, in several threads, showing progress.

    Yields (source, row, picture) of each that cannot be decoded, in the order of the rows.
    """
    places = [(n, row) for n, source in enumerate(sources) for row in range(len(source.labels))]
    with ThreadPool(min(os.cpu_count() or 1, MOST_THREADS)) as threads:
        reasons = threads.imap(lambda at: _reason(sources[at[0]], at[1]), places, AT_ONCE)
        shown = tqdm(
            zip(places, reasons, strict=True),
            "Checking pictures",
            len(places),
            delay=PROGRESS_AFTER_SECONDS,
            leave=False,
        )
        for (number, row), reason in shown:
            if reason is not None:
                yield number, row, Unusable(sources[number].describe(row), reason)


def _reason(source: EncodedImages, row: int) -> str | None:
    """Why a picture cannot be decoded, taken from `known` unless the file has changed since."""
    stamp = source.stamp(row)
    if stamp not in known:
        known[stamp] = damage(source, row)
    return known[stamp]
