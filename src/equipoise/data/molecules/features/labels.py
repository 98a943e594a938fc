"""The labels of atoms, pairs, triplets and quads, which the network embeds.

Source: the features of the winners of the CHAMPS competition (see `features`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.data.molecules.features.topology import Neighbours, Paths, Rows, Triplets
from equipoise.data.molecules.tables import TYPES

CORRECTIONS = {
    "1JHN_2_2_1_1": "1JHN_3_2_2_1",
    "3JHN_4.5_3_1.5_1.5": "3JHN_4_3_1.5_1.5",
    "2JHC_3_3_1_1": "2JHC_4_3_2_1",
    "3JHC_3_3_1_1": "3JHC_4_3_2_1",
    "3JHC_4_2_2_2": "3JHC_4_2_3_1",
}
"""Surroundings that perception distinguishes without good reason, as published."""
COUNTED_BONDS = 4
"""How many of an atom's bond orders, the greatest ones, are part of its label."""


class Coded(NamedTuple):
    """A label for each of n items: codes int32 (n,), which index the sorted names."""

    codes: NDArray[np.int32]
    names: tuple[str, ...]


def coded(columns: tuple[NDArray, ...], name: Callable[..., str]) -> Coded:
    """Label n items by `name` of their values in integer columns (n,), each at least 0."""
    sizes = [int(column.max(initial=0)) + 1 for column in columns]
    keys = np.zeros(len(columns[0]), dtype=np.int64)
    for column, size in zip(columns, sizes, strict=True):
        keys = keys * size + column
    _, examples, places = np.unique(keys, return_index=True, return_inverse=True)
    found = [name(*(int(column[row]) for column in columns)) for row in examples]
    names = tuple(sorted(set(found)))
    code = {entry: number for number, entry in enumerate(names)}
    table = np.array([code[entry] for entry in found], dtype=np.int32)
    return Coded(table[places], names)


class AtomLabels(NamedTuple):
    """The labels of N atoms, from the coarsest to the finest, and one for triplets.

    element: C. valence: C_4.0, element and sum of the bond orders. full: C_4.0_3.0_2.0_1.0, also
    the number of bonds and the two greatest orders. degree: C3.0, element and number of bonds.
    """

    element: Coded
    valence: Coded
    full: Coded
    degree: Coded


def atom_labels(symbols: NDArray[np.str_], neighbours: Neighbours, orders: NDArray) -> AtomLabels:
    """Label atoms by their bonds. orders: (E,), those of the bonds."""
    elements, element = np.unique(symbols, return_inverse=True)
    order = np.rint(2 * orders).astype(np.int64)[neighbours.bond]  # 1.5 exists
    sorted_rows = np.lexsort((-order, neighbours.centre))
    rank = np.arange(len(order)) - neighbours.starts[neighbours.centre]
    counted = rank < COUNTED_BONDS
    greatest = np.zeros((len(symbols), COUNTED_BONDS), dtype=np.int64)
    greatest[neighbours.centre[counted], rank[counted]] = order[sorted_rows][counted]
    valence, degree = greatest.sum(axis=1), (greatest > 0).sum(axis=1)

    def full(element: int, valence: int, degree: int, first: int, second: int) -> str:
        numbers = (valence / 2, float(degree), first / 2, second / 2)
        return "_".join([str(elements[element]), *map(str, numbers)])

    return AtomLabels(
        Coded(element.astype(np.int32), tuple(map(str, elements))),
        coded((element, valence), lambda e, v: f"{elements[e]}_{v / 2}"),
        coded((element, valence, degree, greatest[:, 0], greatest[:, 1]), full),
        coded((element, degree), lambda e, d: f"{elements[e]}{float(d)}"),
    )


def pair_labels(
    labels: AtomLabels, atoms: Rows, types: Rows, orders: NDArray
) -> tuple[Coded, Coded, Coded]:
    """Three labels of each pair of atoms (P, 2), from the coarsest to the finest.

    A pair with a coupling: 1JHC, then with the surroundings of the heavier atom, 1JHC_4_4_1_1, and
    with the full labels of both. Any other pair: C-H_1.0, elements and bond order. types: (P,), 0
    or 1 + the place in `TYPES`.
    """
    elements, surroundings = labels.element.names, labels.full.names
    coupled = types > 0
    low, high = np.sort(labels.element.codes[atoms], axis=1).T
    plain = tuple(np.where(coupled, 0, v) for v in (low, high, np.rint(2 * orders).astype(int)))
    full = labels.full.codes[atoms]
    hydrogen = np.array([name == "H" for name in elements])[labels.element.codes[atoms]]
    heavier = np.where(hydrogen[:, 0], full[:, 1], full[:, 0])
    surrounded = np.where(coupled & ~hydrogen.all(axis=1), 1 + heavier, 0)
    least, most = (np.where(coupled, end, 0) for end in np.sort(full, axis=1).T)

    def kind(type_: int, low: int, high: int, order: int) -> str:
        return TYPES[type_ - 1] if type_ else f"{elements[low]}-{elements[high]}_{order / 2}"

    def labelled(type_: int, low: int, high: int, order: int, heavier: int) -> str:
        name = kind(type_, low, high, order)
        if heavier:
            _, *numbers = surroundings[heavier - 1].split("_")
            name = "_".join([name, *numbers]).replace(".0", "")
        return CORRECTIONS.get(name, name)

    def finest(type_: int, low: int, high: int, order: int, least: int, most: int) -> str:
        name = kind(type_, low, high, order)
        return f"{name}-{surroundings[least]}-{surroundings[most]}" if type_ else name

    return (
        coded((types, *plain), kind),
        coded((types, *plain, surrounded), labelled),
        coded((types, *plain, least, most), finest),
    )


def triplet_labels(
    labels: AtomLabels, neighbours: Neighbours, triplets: Triplets
) -> tuple[Coded, Coded]:
    """Two labels of each triplet: CCH, of elements, and C3.0-C3.0-H1.0; the centre comes first."""
    degree = labels.degree
    centre = degree.codes[neighbours.centre[triplets.first]]
    ends = np.stack([degree.codes[neighbours.other[row]] for row in triplets[:2]], axis=1)
    low, high = np.sort(ends, axis=1).T

    def elements(*codes: int) -> str:
        return "".join(degree.names[code].rstrip(".0123456789") for code in codes)

    def degrees(*codes: int) -> str:
        return "-".join(degree.names[code] for code in codes)

    return coded((centre, low, high), elements), coded((centre, low, high), degrees)


def quad_labels(labels: AtomLabels, neighbours: Neighbours, quads: Paths) -> Coded:
    """The label of each quad, C_H_C_O: the elements of each middle atom and its outer neighbour."""
    codes, names = labels.element
    count = len(names)
    halves = [
        codes[neighbours.centre[row]] * count + codes[neighbours.other[row]] for row in quads[1:]
    ]

    def both(*halves: int) -> str:
        return "_".join(sorted(f"{names[half // count]}_{names[half % count]}" for half in halves))

    return coded(tuple(halves), both)
