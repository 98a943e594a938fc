"""Small graph transformers in float64, and molecules made up for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.models import CouplingTransformer

LABELS = {"atom": (3, 4, 5), "pair": (4, 6, 7), "triplet": (4, 8), "quad": (5,)}
KINDS = tuple(LABELS)
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "head_dropout": 0.0}
OF_ATOMS = ("atom", "position", "atom_feature")
OF_PAIRS = ("pair", "pair_atoms", "squared_distance", "type")
OF_TRIPLETS = ("triplet", "triplet_atoms", "triplet_pairs", "triplet_angle")
OF_QUADS = ("quad", "quad_atoms", "quad_pairs", "quad_triplets", "quad_angle")
COLUMNS = dict(zip(KINDS, (OF_ATOMS, OF_PAIRS, OF_TRIPLETS, OF_QUADS), strict=True))
Batch = dict[str, Tensor]


def network(*equilibrium: Any, **changes: Any) -> CouplingTransformer:
    """A network without dropout, the same at each call; its gammas differ from kind to kind."""
    torch.manual_seed(0)
    sizes = {f"{kind}_types": counts for kind, counts in LABELS.items()}
    given = {"width": 12, "layers": 2, "heads": 2, "inner": 16, "head_width": 5, **NO_DROPOUT}
    model = CouplingTransformer(*equilibrium, **{**sizes, **given, **changes}).double()
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            parameter.data = 0.05 + 0.1 * torch.rand_like(parameter)
    return model


def molecule(atoms: int, triplets: int = 4, quads: int = 3, seed: int = 0) -> Batch:
    """Random atoms, all pairs of them, and some triplets and quads; half of the pairs are asked."""
    random = torch.Generator().manual_seed(seed)

    def labels(kind: str, count: int) -> Tensor:
        levels = [torch.randint(1, n + 1, (count,), generator=random) for n in LABELS[kind]]
        return torch.stack(levels, dim=1)

    position = 1.5 * torch.randn(atoms, 3, generator=random, dtype=torch.float64)
    ends = torch.tensor(list(combinations(range(atoms), 2)))
    ends = ends[torch.randperm(len(ends), generator=random)]
    place = torch.zeros(atoms, atoms, dtype=torch.int64)
    place[ends[:, 0], ends[:, 1]] = place[ends[:, 1], ends[:, 0]] = torch.arange(len(ends))
    picked = torch.stack([torch.randperm(atoms, generator=random)[:3] for _ in range(triplets)])
    centre, a, b = picked.unbind(dim=1)
    chain = torch.stack([torch.randperm(atoms, generator=random)[:4] for _ in range(quads)])
    i, j, k, m = chain.unbind(dim=1)
    first, second = ends.unbind(dim=1)
    return {
        "atom": labels("atom", atoms), "position": position,
        "atom_feature": torch.randn(atoms, 2, generator=random, dtype=torch.float64),
        "pair": labels("pair", len(ends)), "pair_atoms": ends,
        "squared_distance": (position[first] - position[second]).square().sum(dim=1),
        "type": torch.randint(1, 9, (len(ends),), generator=random)
        * (torch.arange(len(ends)) < (len(ends) + 1) // 2),
        "triplet": labels("triplet", triplets), "triplet_atoms": picked,
        "triplet_pairs": torch.stack([place[centre, a], place[centre, b]], dim=1),
        "triplet_angle": 3 * torch.rand(triplets, generator=random, dtype=torch.float64),
        "quad": labels("quad", quads), "quad_atoms": chain,
        "quad_pairs": torch.stack([place[i, j], place[i, k], place[j, m]], dim=1),
        "quad_triplets": torch.randint(0, triplets, (quads, 2), generator=random),
        "quad_angle": 3 * torch.rand(quads, generator=random, dtype=torch.float64),
    }  # fmt: skip


def batched(molecules: Sequence[Batch], more: dict[str, int] | None = None) -> Batch:
    """The molecules padded with zeros to the largest, and `more` nodes of each kind."""
    batch = {}
    for kind, names in COLUMNS.items():
        counts = [len(one[kind]) for one in molecules]
        most = max(counts) + (more or {}).get(kind, 0)
        for name in names:
            padded = [
                functional.pad(one[name], [0, 0] * (one[name].dim() - 1) + [0, most - count])
                for one, count in zip(molecules, counts, strict=True)
            ]
            batch[name] = torch.stack(padded)
        batch[f"{kind}_present"] = torch.arange(most) < torch.tensor(counts)[:, None]
    return batch


def several() -> list[Batch]:
    """Molecules of 5, 4 and 6 atoms."""
    return [molecule(5), molecule(4, triplets=2, quads=1, seed=1), molecule(6, seed=2)]


def loss(predicted: Tensor) -> Tensor:
    return predicted.square().sum() + predicted.sin().sum()
