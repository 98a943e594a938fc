"""A training step of the coupling transformer beside a dense one that is written out.

    python -m benchmarks.coupling_transformer [repeats]

29 atoms, 250 pairs of which 100 are to be predicted, 54 triplets, 16 molecules. The dense one is
what the published code does: it weighs the distances for each layer and each head in tensors of
all pairs of nodes, computes the last layer for all nodes, and the heads of all types for all pairs;
"dense_layers" has our heads, of each pair's own type. All sides have the same weights, the absolute
loss and Adam. Times are medians of process CPU time, sides in turn, on one thread; memory is the
peak that the allocator counts in a step. On a GPU both are the GPU's.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.memory import peak_bytes
from benchmarks.timing import in_turn, ratio
from equipoise.models import CouplingTransformer
from equipoise.models.coupling_transformer.head import ResidualBlock, TypedLinear
from equipoise.models.coupling_transformer.layer import DistanceAttention, GraphLayer

MOLECULES, ATOMS, PAIRS, PREDICTED, TRIPLETS = 16, 29, 250, 100, 54
TYPES = {"atom_types": [5, 13, 27], "pair_types": [43, 68, 84], "triplet_types": [29, 118]}
COUPLED = 40
"""Labelled types that couplings have; the others are of pairs that have none."""
NO_DROPOUT = {"dropout": 0.0, "head_dropout": 0.0}
SIZES: dict[str, dict[str, Any]] = {
    "nmr_small": {"width": 64, "layers": 4, "heads": 4, "inner": 256, "head_width": 32},
    "a fifth as wide as published": {
        "width": 130, "layers": 4, "heads": 10, "inner": 760, "head_width": 56,
    },
    "as wide as published": {
        "width": 650, "layers": 2, "heads": 10, "inner": 3800, "head_width": 280,
    },
}  # fmt: skip


def molecules() -> dict[str, Tensor]:
    """A batch of molecules, all of the greatest size, with random labels and couplings."""
    draw = torch.Generator().manual_seed(0)

    def labels(count: int, sizes: list[int]) -> Tensor:
        columns = [torch.randint(1, n + 1, (MOLECULES, count), generator=draw) for n in sizes]
        return torch.stack(columns, dim=-1)

    def atoms(count: int, places: int) -> Tensor:
        return torch.rand(MOLECULES, count, ATOMS, generator=draw).argsort(-1)[..., :places]

    position = torch.randn(MOLECULES, ATOMS, 3, generator=draw) * 3
    pair_atoms, triplet_atoms = atoms(PAIRS, 2), atoms(TRIPLETS, 3)
    pair = labels(PAIRS, TYPES["pair_types"])
    pair[:, :PREDICTED, 1] = (pair[:, :PREDICTED, 1] - 1) % COUPLED + 1
    ends = [position.gather(1, pair_atoms[..., [end]].expand(-1, -1, 3)) for end in (0, 1)]
    kind = torch.zeros(MOLECULES, PAIRS, dtype=torch.int64)
    kind[:, :PREDICTED] = torch.randint(1, 9, (MOLECULES, PREDICTED), generator=draw)
    present = {
        f"{name}_present": torch.ones(MOLECULES, count, dtype=torch.bool)
        for name, count in (("atom", ATOMS), ("pair", PAIRS), ("triplet", TRIPLETS))
    }
    return {
        "atom": labels(ATOMS, TYPES["atom_types"]), "position": position,
        "atom_feature": torch.rand(MOLECULES, ATOMS, 2, generator=draw),
        "pair": pair, "pair_atoms": pair_atoms,
        "squared_distance": (ends[0] - ends[1]).square().sum(-1),
        "triplet": labels(TRIPLETS, TYPES["triplet_types"]), "triplet_atoms": triplet_atoms,
        "triplet_pairs": torch.randint(0, PAIRS, (MOLECULES, TRIPLETS, 2), generator=draw),
        "triplet_angle": torch.rand(MOLECULES, TRIPLETS, generator=draw) * 3,
        "type": kind, "coupling": torch.randn(MOLECULES, PAIRS, 1, generator=draw), **present,
    }  # fmt: skip


def ours(model: CouplingTransformer, batch: Mapping[str, Tensor]) -> Tensor:
    """The predictions (N,) of the model."""
    return model(batch).standardized[batch["type"] > 0][:, 0]


def dense(model: CouplingTransformer, batch: Mapping[str, Tensor]) -> Tensor:
    """The same predictions (N,), as the published code computes them."""
    predicted = dense_head(model, dense_states(model, batch).mT)
    own = batch["pair"][..., 1].unsqueeze(1) - 1
    return predicted.gather(1, own).squeeze(1)[batch["type"] > 0]


def dense_layers(model: CouplingTransformer, batch: Mapping[str, Tensor]) -> Tensor:
    """The same predictions (N,) by dense layers and our heads."""
    asked = batch["type"] > 0
    return model.head(dense_states(model, batch)[asked], batch["pair"][..., 1][asked] - 1)[:, 0]


def dense_states(model: CouplingTransformer, batch: Mapping[str, Tensor]) -> Tensor:
    """The states (B, P, width) of all pairs."""
    graph = model.graph(batch)
    numbers = torch.tensor(graph.counts)
    kinds = torch.arange(len(graph.counts)).repeat_interleave(numbers)
    both = graph.present.unsqueeze(1) & graph.present.unsqueeze(2)
    state = graph.state
    for layer in model.layers:
        assert isinstance(layer, GraphLayer)
        state = state + dense_attention(
            layer.attention, layer.norm(state), graph.distances, both, kinds
        )
        inner = functional.relu(layer.widen(layer.feed_forward_norm(state)))
        state = state + layer.narrow(inner)
    states: Tensor = model.last_norm(state)[:, graph.counts[0] :][:, : graph.counts[1]]
    return states


def dense_attention(
    attention: DistanceAttention, x: Tensor, distances: Tensor, both: Tensor, kinds: Tensor
) -> Tensor:
    """Attention with scores, distances, masks and weights as tensors (B, H, N, N)."""
    split = attention.value_query_key(x).unflatten(-1, (attention.heads, 3, -1))
    value, query, key = split.transpose(1, 2).unbind(dim=3)
    gamma = attention.gamma[kinds.unsqueeze(1), kinds]
    scores = query @ key.mT / math.sqrt(query.shape[-1]) - (gamma * distances).unsqueeze(1)
    scores = scores + torch.where(both, 0.0, -1e20).unsqueeze(1)
    weights = scores.softmax(dim=-1) * both.unsqueeze(1)
    merged = functional.leaky_relu((weights @ value).transpose(1, 2).flatten(2))
    output: Tensor = attention.output(merged)
    return output


def dense_head(model: CouplingTransformer, pairs: Tensor) -> Tensor:
    """All types for all pairs (B, width, P) -> (B, types, P), by grouped convolutions."""

    def grouped(part: TypedLinear, x: Tensor, groups: int) -> Tensor:
        return functional.conv1d(
            x, part.weight.flatten(0, 1).unsqueeze(-1), part.bias.flatten(), groups=groups
        )

    state, types = grouped(model.head.enter, pairs, 1), model.head.types
    for block in model.head.blocks:
        assert isinstance(block, ResidualBlock)
        inner = functional.relu(grouped(block.first, state, types))
        state = state + grouped(block.second, inner, types)
    return grouped(model.head.leave, state, types)


def step_of(
    predict: Callable[..., Tensor], model: CouplingTransformer, batch: Mapping[str, Tensor]
) -> Callable[[], Tensor]:
    """A training step: forward, absolute loss, backward, Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    true = batch["coupling"][batch["type"] > 0][:, 0]

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (predict(model, batch) - true).abs().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def main(repeats: int) -> None:
    """Print a row for each size."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = {name: part.to(device) for name, part in molecules().items()}
    print("| sizes | side | s a step | ours is faster by | peak MiB |")
    print("|---|---|---|---|---|")
    for name, sizes in SIZES.items():
        torch.manual_seed(0)
        model = CouplingTransformer(**TYPES, **sizes, **NO_DROPOUT).to(device)
        with torch.no_grad():
            expected = dense(model, batch)
            for side in (ours, dense_layers):
                torch.testing.assert_close(side(model, batch), expected, rtol=1e-3, atol=1e-3)
        steps = {side.__name__: step_of(side, model, batch) for side in (ours, dense_layers, dense)}
        times = in_turn(steps, repeats)
        for side, step in steps.items():
            seconds, peak = statistics.median(times[side]), peak_bytes(step) / 2**20
            factor = ratio(times, side, "ours")
            print(f"| {name} | {side} | {seconds:.2f} | {factor:.2f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
