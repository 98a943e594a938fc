"""Small csv files of molecules in the layout of CHAMPS, right or wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

Atom = tuple[str, float, float, float]
Pair = tuple[int, int, str, float]

STRUCTURES = "molecule_name,atom_index,atom,x,y,z"
PAIRS = "id,molecule_name,atom_index_0,atom_index_1,type,scalar_coupling_constant"

AMMONIUM: list[Atom] = [
    ("N", 0, 0, 0), ("H", 0.6, 0.6, 0.6), ("H", -0.6, -0.6, 0.6), ("H", -0.6, 0.6, -0.6),
    ("H", 0.6, -0.6, -0.6),
]  # fmt: skip
METHANE: list[Atom] = [
    ("C", 0, 0, 0), ("H", 0.63, 0.63, 0.63), ("H", -0.63, -0.63, 0.63), ("H", -0.63, 0.63, -0.63),
    ("H", 0.63, -0.63, -0.63),
]  # fmt: skip
CYANIDE: list[Atom] = [("C", 0, 0, 0), ("N", 1.16, 0, 0), ("H", -1.07, 0, 0)]
ETHYNE: list[Atom] = [("C", 0, 0, 0), ("C", 1.2, 0, 0), ("H", -1.06, 0, 0), ("H", 2.26, 0, 0)]
WATER: list[Atom] = [("O", 0, 0, 0), ("H", 0.96, 0, 0), ("H", -0.24, 0.93, 0)]
CLUSTER: list[Atom] = [
    ("C", 0, 0, 0),
    *(("H", x, y, 0) for x in (-0.8, 0.8) for y in (-0.8, 0, 0.8)),
]
"""A carbon with six hydrogens, whose valences no bond orders satisfy."""

METHANE_PAIRS: list[Pair] = [(1, 0, "1JHC", 112.5), (1, 2, "2JHH", -12.9), (2, 0, "1JHC", 112.4)]


def structure_lines(name: str, atoms: Iterable[Atom]) -> list[str]:
    return [f"{name},{row},{','.join(map(str, atom))}" for row, atom in enumerate(atoms)]


def pair_lines(name: str, pairs: Iterable[Pair], first: int = 0) -> list[str]:
    return [f"{first + row},{name},{','.join(map(str, pair))}" for row, pair in enumerate(pairs)]


def write(folder: Path, structures: Sequence[str], pairs: Sequence[str], end: str = "\n") -> Path:
    """structures.csv and train.csv of these lines, below the usual first ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (
        ("structures.csv", [STRUCTURES, *structures]),
        ("train.csv", [PAIRS, *pairs]),
    ):
        (folder / name).write_bytes((end.join(lines) + end).encode())
    return folder


def methanes(folder: Path, count: int) -> Path:
    """That many molecules, slightly different, with three couplings each."""
    generator = np.random.default_rng(0)
    structures: list[str] = []
    pairs: list[str] = []
    for number in range(count):
        shaken = [
            (symbol, *(np.array(place) + generator.normal(0, 0.01, 3)).tolist())
            for symbol, *place in METHANE
        ]
        own = [(a, b, kind, j + generator.normal()) for a, b, kind, j in METHANE_PAIRS]
        structures += structure_lines(f"m{number:04}", shaken)  # type: ignore[arg-type]
        pairs += pair_lines(f"m{number:04}", own, first=len(pairs))
    return write(folder, structures, pairs)
