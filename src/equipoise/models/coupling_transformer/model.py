"""The graph transformer for couplings: atoms, pairs, triplets and quads as nodes of one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equipoise.models.coupling_transformer.distances import (
    KINDS,
    squared_distances,
    with_legacy_padding,
)
from equipoise.models.coupling_transformer.embedding import Form, NodeEmbedding
from equipoise.models.coupling_transformer.head import TypedHead
from equipoise.models.coupling_transformer.layer import GraphCell, GraphEquilibrium, GraphLayer

CONTRIBUTIONS = 4
"""Fermi contact, spin-dipolar, paramagnetic and diamagnetic spin-orbit: the coupling is the sum."""


class Couplings(NamedTuple):
    """standardized (B, P, K): 0 where there is nothing to predict; K = 1, the coupling, or 5."""

    standardized: Tensor


class Graph(NamedTuple):
    """The nodes of a batch: states (B, N, width), which are present (B, N), D (B, N, N).

    counts: how many nodes there are of each kind, padding included.
    """

    state: Tensor
    present: Tensor
    distances: Tensor
    counts: tuple[int, ...]


class CouplingTransformer(nn.Module):
    """Molecules -> the couplings of their pairs of atoms, in units of each type's deviation.

    Every atom, every pair and every triplet of atoms is a node, and with `quads` every torsion. A
    stack of layers lets all nodes attend to each other, the less the farther apart they are. One
    network for each labelled type of pair reads the states of the pairs to be predicted.

    With `equilibrium`, one layer at its fixed point replaces the stack.

    Source: 2008.05994, the first-placed solution of the CHAMPS competition that it describes, and
    the code published with it.
    """

    head_parts = ("head",)

    def __init__(
        self,
        equilibrium: nn.Module | bool = False,
        *,
        atom_types: Sequence[int],
        pair_types: Sequence[int],
        triplet_types: Sequence[int],
        quad_types: Sequence[int] = (),
        contributions: bool = False,
        width: int = 650,
        layers: int = 14,
        heads: int = 10,
        inner: int = 3800,
        head_width: int = 280,
        residual_blocks: int = 1,
        quads: bool = False,
        atom_feature: Form = "sine",
        pair_feature: Form = "sine",
        triplet_feature: Form = "sine",
        quad_feature: Form = "sine",
        feature_width: int = 64,
        weight_norm: bool = False,
        legacy_indices: bool = False,
        dropout: float = 0.03,
        attention_dropout: float = 0.0,
        head_dropout: float = 0.04,
    ) -> None:
        """equilibrium: the layer, or False for a stack of layers.

        *_types: how many labels there are on each level, excluding 0; the heads follow the second
        level of pairs. contributions: predict fc, sd, pso and dso with the coupling. inner: width
        of the feed-forward networks; head_width and residual_blocks: of the heads. *_feature: see
        `NodeEmbedding`, and feature_width of learned ones. legacy_indices: the published code's
        index errors (see `triplet_indices`), with which its weights were trained. Raises ValueError
        if the numbers do not fit each other.
        """
        super().__init__()
        if equilibrium is True:
            raise ValueError("equilibrium is the layer itself, or False: give an Equilibrium")
        if quads and not quad_types:
            raise ValueError("quads=true needs quad_types, the number of their labels")
        self.quads = quads
        self.legacy_indices = legacy_indices
        self.types = {
            "atom": tuple(atom_types), "pair": tuple(pair_types),
            "triplet": tuple(triplet_types), "quad": tuple(quad_types),
        }  # fmt: skip
        self.outputs = 1 + CONTRIBUTIONS if contributions else 1
        forms = (atom_feature, pair_feature, triplet_feature, quad_feature)
        self.kinds = KINDS if quads else KINDS[:-1]
        self.embeddings = nn.ModuleDict(
            {
                kind: NodeEmbedding(
                    self.types[kind], width, features=2 if kind == "atom" else 1,
                    form=form, feature_width=feature_width,
                )
                for kind, form in zip(self.kinds, forms, strict=False)
            }
        )  # fmt: skip
        self.layers = nn.ModuleList()
        self.equilibrium = None
        if isinstance(equilibrium, nn.Module):
            cell = GraphCell(width, heads, inner, dropout=dropout, weight_norm=weight_norm)
            self.equilibrium = GraphEquilibrium(equilibrium, cell)
        else:
            self.layers.extend(
                GraphLayer(
                    width, heads, inner, dropout=dropout,
                    attention_dropout=attention_dropout, weight_norm=weight_norm,
                )
                for _ in range(layers)
            )  # fmt: skip
        self.last_norm = nn.LayerNorm(width)
        self.head = TypedHead(
            pair_types[1], width, head_width, blocks=residual_blocks, outputs=self.outputs,
            dropout=head_dropout,
        )  # fmt: skip

    def forward(self, batch: Mapping[str, Tensor]) -> Couplings:
        """The couplings of a batch of molecules, in the format of the molecule data modules.

        Raises ValueError if a molecule is too large for legacy indices.
        """
        kind = batch["pair"][..., 1] - 1
        asked = (batch["type"] > 0) & (kind >= 0)
        columns = asked.any(dim=0).nonzero()
        last = int(columns[-1]) + 1 if len(columns) else 1  # pairs to be predicted come first
        asked, places = asked[:, :last], asked[:, :last].nonzero(as_tuple=True)
        shape = (*batch["pair"].shape[:2], self.outputs)
        if self.legacy_indices:
            batch = with_legacy_padding(batch)
        states = self.encoded(batch, last)[places]
        predicted = self.head(states, kind[:, :last][places])
        return Couplings(predicted.new_zeros(shape).index_put(places, predicted))

    @torch.no_grad()
    def of_all_types(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The outputs of all types' heads for every pair, (B, types, P), as published.

        Legacy indices then refer to the batch's own nodes, without padding to the published size.
        """
        return self.head.of_all_types(self.encoded(batch, batch["pair"].shape[1]))

    def encoded(self, batch: Mapping[str, Tensor], pairs: int) -> Tensor:
        """The normalised states (B, pairs, width) of the first `pairs` pairs of each molecule."""
        graph = self.graph(batch)
        rows = slice(graph.counts[0], graph.counts[0] + pairs)
        if self.equilibrium is not None:
            attention = self.equilibrium.cell.attention
            bias = attention.bias(graph.distances, graph.present, graph.counts)
            state = self.equilibrium(graph.state, bias, graph.present)[:, rows]
        else:
            state = self._through_layers(graph, rows)
        encoded: Tensor = self.last_norm(state)
        return encoded

    def graph(self, batch: Mapping[str, Tensor]) -> Graph:
        """The embedded nodes of a batch, and their distances."""
        features = {
            "atom": batch["atom_feature"],
            "pair": batch["squared_distance"].unsqueeze(-1),
            "triplet": batch["triplet_angle"].unsqueeze(-1),
        }
        if self.quads:
            features["quad"] = batch["quad_angle"].unsqueeze(-1)
        states = [self.embeddings[kind](batch[kind], features[kind]) for kind in self.kinds]
        present = torch.cat([batch[f"{kind}_present"] for kind in self.kinds], dim=1)
        distances = squared_distances(batch, quads=self.quads, legacy=self.legacy_indices)
        counts = tuple(state.shape[1] for state in states)
        return Graph(torch.cat(states, dim=1), present, distances, counts)

    def _through_layers(self, graph: Graph, rows: slice) -> Tensor:
        """The states of the nodes `rows`; the last layer computes no others."""
        state, present = graph.state, graph.present.unsqueeze(-1).to(graph.state.dtype)
        for number, layer in enumerate(self.layers, start=1):
            assert isinstance(layer, GraphLayer)
            bias = layer.attention.bias(graph.distances, graph.present, graph.counts)
            wanted = rows if number == len(self.layers) else slice(None)
            state = layer(state, bias, present, wanted)
        return state
