"""Squared distances between all nodes of a molecule: atoms, pairs, triplets and quads of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

KINDS = ("atom", "pair", "triplet", "quad")
"""The order of the node kinds; within a kind, nodes are ordered as in the batch."""
LEGACY_ATOMS = 29
"""How many atoms the published code pads to; some of its atom indices mean other nodes."""
PADDED = ("atom", "atom_feature", "position", "atom_present")


def with_legacy_padding(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch with atoms padded to 29. Raises ValueError for a larger molecule."""
    atoms = batch["atom"].shape[1]
    if atoms > LEGACY_ATOMS:
        raise ValueError(
            f"legacy_indices=true takes molecules of up to {LEGACY_ATOMS} atoms, not of {atoms}"
        )
    padded = {}
    for name in PADDED:
        widths = [0, 0] * (batch[name].dim() - 2) + [0, LEGACY_ATOMS - atoms]
        padded[name] = functional.pad(batch[name], widths)
    return {**batch, **padded}


def squared_distances(batch: Mapping[str, Tensor], *, quads: bool, legacy: bool) -> Tensor:
    """D (B, N, N) over the nodes, in squared Angstrom where both are atoms.

    For two atoms d = |x_i - x_j|^2. For an atom and a pair, D is the smaller d to the pair's ends;
    for two pairs, the mean over one's ends of that to the other, symmetrised. For an atom and a
    triplet, the smallest d to its atoms, plus that to its centre; for a pair and a triplet, the
    smaller of those to its pairs; for two triplets, the mean over one's pairs of that to the other,
    symmetrised.

    Source: the code published with 2008.05994. `legacy`: with its indices, see `triplet_indices`.
    """
    position = batch["position"]
    atoms = (position.unsqueeze(2) - position.unsqueeze(1)).square().sum(dim=-1)
    ends = batch["pair_atoms"].unbind(dim=-1)
    to_pairs = smallest(atoms, ends)
    among = joined(atoms, to_pairs, mean_of_rows(to_pairs, ends))
    members, pairs = triplet_indices(batch, legacy)
    count = position.shape[1]
    near = smallest(among[:, :count], members) + columns(among[:, :count], members[0])
    to_triplets = torch.cat([near, smallest(among[:, count:], pairs)], dim=1)
    among = joined(among, to_triplets, mean_of_rows(to_triplets, pairs))
    return with_quads(among, batch, count, legacy) if quads else among


def triplet_indices(
    batch: Mapping[str, Tensor], legacy: bool
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """The atoms of each triplet, centre first, and its pairs, as places (B, T) among all nodes.

    The published code reads one column too early and ignores the nodes that precede the pairs: it
    takes the triplet's label for the centre, the centre's neighbour for an atom, an atom for the
    first pair, and the second pair's number unshifted.
    """
    centre, first, second = batch["triplet_atoms"].unbind(dim=-1)
    pairs = batch["triplet_pairs"]
    if legacy:
        label = batch["triplet"][..., 1]
        # the published batches have 250 pairs: a label that is no node of a smaller one means a
        # padded pair there, which is as near to an atom as the first atom is
        label = label.where(label < batch["atom"].shape[1] + batch["pair"].shape[1], 0)
        return (label, centre, first), (second, pairs[..., 1])
    return (centre, first, second), (pairs + batch["atom"].shape[1]).unbind(dim=-1)


def with_quads(among: Tensor, batch: Mapping[str, Tensor], atoms: int, legacy: bool) -> Tensor:
    """The distances, extended by those of quads.

    For an atom, the smallest of those to the four atoms, plus that to the nearer of the two in the
    middle; for a pair, the smallest of those to the three pairs, plus that to the middle one; for a
    triplet, the smaller of those to the two triplets; for two quads, the mean over one's triplets
    of that to the other, symmetrised.
    """
    pairs_before, triplets_before = 0, 0
    if not legacy:
        pairs_before = atoms
        triplets_before = atoms + batch["pair"].shape[1]
    members = batch["quad_atoms"].unbind(dim=-1)
    pairs = (batch["quad_pairs"] + pairs_before).unbind(dim=-1)
    triplets = (batch["quad_triplets"] + triplets_before).unbind(dim=-1)
    pair_count = batch["pair"].shape[1]
    of_atoms, of_pairs, of_triplets = among.split_with_sizes(
        [atoms, pair_count, among.shape[1] - atoms - pair_count], dim=1
    )
    to_quads = torch.cat(
        [
            smallest(of_atoms, members) + smallest(of_atoms, members[:2]),
            smallest(of_pairs, pairs) + columns(of_pairs, pairs[0]),
            smallest(of_triplets, triplets),
        ],
        dim=1,
    )
    return joined(among, to_quads, mean_of_rows(to_quads, triplets))


def columns(matrix: Tensor, index: Tensor) -> Tensor:
    """matrix (B, M, N), index (B, K) -> the columns (B, M, K)."""
    return matrix.gather(2, index.unsqueeze(1).expand(-1, matrix.shape[1], -1))


def rows(matrix: Tensor, index: Tensor) -> Tensor:
    """matrix (B, M, N), index (B, K) -> the rows (B, K, N)."""
    return matrix.gather(1, index.unsqueeze(2).expand(-1, -1, matrix.shape[2]))


def smallest(matrix: Tensor, indices: Sequence[Tensor]) -> Tensor:
    """The smallest of several columns (B, M, K), each index (B, K)."""
    return reduce(torch.minimum, [columns(matrix, index) for index in indices])


def mean_of_rows(matrix: Tensor, indices: Sequence[Tensor]) -> Tensor:
    """matrix (B, M, K), indices (B, K) into M -> the symmetrised mean of the rows (B, K, K)."""
    mean = sum(rows(matrix, index) for index in indices) / len(indices)
    assert isinstance(mean, Tensor)
    return (mean + mean.mT) / 2


def joined(matrix: Tensor, to_others: Tensor, others: Tensor) -> Tensor:
    """[[matrix, to_others], [to_others^T, others]]."""
    return torch.cat(
        [torch.cat([matrix, to_others], dim=2), torch.cat([to_others.mT, others], dim=2)], dim=1
    )
