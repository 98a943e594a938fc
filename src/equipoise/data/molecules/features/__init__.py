"""From atoms and couplings to graphs: the features of many molecules at once.

They are those of the winners of the CHAMPS competition (Bratholm et al. 2021, A community-powered
search of machine learning strategy space to find NMR property prediction models, doi
10.1371/journal.pone.0253612), except for the partial charges, which RDKit computes here.
"""

from __future__ import annotations

from equipoise.data.molecules.couplings import Couplings
from equipoise.data.molecules.features.labels import atom_labels
from equipoise.data.molecules.features.levels import Items, Pairs, atom_level
from equipoise.data.molecules.features.perception import chemistry, perceive
from equipoise.data.molecules.features.topology import (
    Neighbours,
    couplings_within_three_bonds,
    paths_of,
)
from equipoise.data.molecules.graphs import MoleculeGraphs
from equipoise.data.molecules.tables import Structures

__all__ = ["chemistry", "graphs_of"]


def graphs_of(structures: Structures, couplings: Couplings | None) -> MoleculeGraphs:
    """The graphs of molecules; without couplings, of all pairs whose type is in `TYPES`.

    Raises UserError if rdkit is missing or a symbol is not an element.
    """
    perceived = perceive(structures)
    neighbours = Neighbours.of(perceived.bonds, len(structures.symbols))
    labels = atom_labels(structures.symbols, neighbours, perceived.orders)
    paths = paths_of(neighbours)
    if couplings is None:
        couplings = couplings_within_three_bonds(structures, neighbours, paths)
    pairs = Pairs(structures, couplings, perceived.bonds, perceived.orders)
    items = Items(structures, neighbours, labels, pairs.of_bonds[neighbours.bond])
    return MoleculeGraphs(
        structures.names,
        perceived.by_radii,
        {
            "atom": atom_level(structures, perceived.charges, labels),
            "pair": pairs.level(labels),
            "triplet": items.triplet_level(),
            "quad": items.quad_level(paths),
        },
    )
