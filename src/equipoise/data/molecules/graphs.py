"""Molecules as graphs of atoms, pairs, triplets and quads, in flat columns of all molecules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = ("atom", "pair", "triplet", "quad")


@dataclass(frozen=True, eq=False)
class Level:
    """The items of one kind, of all molecules: M molecules with n items together.

    starts: int64 (M + 1,), where those of each molecule begin. columns: arrays (n, ...); atoms,
    pairs and triplets that they name count from the molecule's first. labels: the sorted names of
    each column of columns["label"], int32 (n, depths), whose codes are places among them.
    """

    starts: NDArray[np.int64]
    columns: Mapping[str, NDArray]
    labels: tuple[tuple[str, ...], ...]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many items each molecule has."""
        return np.diff(self.starts)


@dataclass(frozen=True, eq=False)
class MoleculeGraphs:
    """M molecules by name, and their atoms, pairs, triplets and quads.

    by_radii: bool (M,), whether bonds could not be perceived (see `Perceived`). Columns:

    - atom: position float32 (n, 3), Angstrom; feature float32 (n, 2), the angle between the two
      nearest atoms over pi, and the charge.
    - pair: atoms int32 (n, 2); squared_distance float32 (n,); real bool (n,), whether bonded or
      with a coupling; type int64 (n,), 0 or 1 + the place in `TYPES`; row int64 (n,), the id of the
      coupling or -1; coupling float32 (n, K), Hz, 0 where there is none. Real pairs come first, by
      their atoms, then the others by distance.
    - triplet: atoms int32 (n, 3), the centre first; pairs int32 (n, 2), of the centre and each of
      the others; angle float32 (n,), radians.
    - quad: atoms int32 (n, 4), the two in the middle and then the neighbour of each; pairs int32
      (n, 3), the middle one first; triplets int32 (n, 2); angle float32 (n,), radians.
    """

    names: tuple[str, ...]
    by_radii: NDArray[np.bool_]
    levels: Mapping[str, Level]

    def __len__(self) -> int:
        """The number of molecules."""
        return len(self.names)

    def level(self, name: str) -> Level:
        """The items of a kind of `LEVELS`."""
        return self.levels[name]

    @property
    def targets(self) -> int:
        """How many numbers a coupling is: 1, or 5 with its contributions."""
        return self.levels["pair"].columns["coupling"].shape[1]

    def items_of(self, level: str, molecules: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether each item (n,) of a level belongs to one of the molecules, bool (M,)."""
        return np.repeat(molecules, self.levels[level].counts)


def joined(parts: Sequence[MoleculeGraphs]) -> MoleculeGraphs:
    """The molecules of all parts, one after the other."""
    return MoleculeGraphs(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.by_radii for part in parts]),
        {name: _joined_level([part.levels[name] for part in parts]) for name in LEVELS},
    )


def _joined_level(parts: Sequence[Level]) -> Level:
    depths = range(len(parts[0].labels))
    names = [sorted(set().union(*(part.labels[depth] for part in parts))) for depth in depths]
    columns = {
        key: np.concatenate([part.columns[key] for part in parts])
        for key in parts[0].columns
        if key != "label"
    }
    columns["label"] = np.concatenate([_recoded(part, names) for part in parts])
    starts = np.concatenate([[0], np.concatenate([part.counts for part in parts]).cumsum()])
    return Level(starts, columns, tuple(map(tuple, names)))


def _recoded(part: Level, names: list[list[str]]) -> NDArray[np.int32]:
    codes = np.empty_like(part.columns["label"])
    for depth, (old, new) in enumerate(zip(part.labels, names, strict=True)):
        code = {name: number for number, name in enumerate(new)}
        table = np.array([code[name] for name in old], dtype=np.int32)
        codes[:, depth] = table[part.columns["label"][:, depth]]
    return codes
