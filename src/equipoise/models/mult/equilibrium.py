"""Crossmodal attention at its fixed point: one layer for each pair instead of a stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.mult.attention import Attention, View
from equipoise.models.mult.encoder import INNER, Dropout, Pair, embedded, feed_forward
from equipoise.nn import sequence_mask

MASKS = 3
"""Dropout of attention's output, of the inner features and of the feed-forward output."""


class CrossmodalCell(nn.Module):
    """f(z) = LN(h + F(h)), h = LN(u + A(z, source)): one layer of a target, with injection u.

    u is the embedded target (B, T, width), A attention from z to the source, F a network with one
    hidden layer of ReLUs. So z* is what a step reads from the source when z* itself is its query: z
    enters only through the queries, which is what makes f contract. Norms and injection follow the
    equilibrium transformer (1909.01377, section 4.2); no published system has this layer. At a step
    of padding the state is A(0, source): there is nothing to iterate, and normalising what may be 0
    would give a huge gradient.
    """

    def __init__(self, width: int, source_width: int, heads: int, dropout: Dropout) -> None:
        super().__init__()
        self.width = width
        self.attention = Attention(width, heads, source_width=source_width)
        self.source_norm = nn.LayerNorm(source_width)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = feed_forward(width)
        self.last_norm = nn.LayerNorm(width)
        self.dropout = dropout

    def inputs(self, target: Tensor, source: Tensor) -> tuple[Tensor, ...]:
        """What is shared by all evaluations: u, keys, values, steps, masks in training.

        Keys and values (B, S, width) are projected here, once. Steps (B, T, 1): False for padding.
        """
        p = self.dropout.embedding
        u = functional.dropout(embedded(target), p, self.training)
        offered = self.source_norm(functional.dropout(embedded(source), p, self.training))
        key, value = self.attention.key(offered), self.attention.value(offered)
        return (u, key, value, of_a_step(target), *self._masks(u))

    def forward(
        self,
        z: Tensor,
        seen: View,
        u: Tensor,
        key: Tensor,
        value: Tensor,
        present: Tensor,
        *masks: Tensor,
    ) -> Tensor:
        """One evaluation (B, T, width)."""
        of_attention, of_inner, of_output = masks or (1.0, 1.0, 1.0)
        z = torch.where(present, z, 0)
        attended = self.attention.read(z, key, value, seen)
        h = self.norm(u + attended * of_attention)
        inner = functional.relu(self.widen(h)) * of_inner
        state: Tensor = self.last_norm(h + self.narrow(inner) * of_output)
        return torch.where(present, state, attended)

    def _masks(self, like: Tensor) -> tuple[Tensor, ...]:
        """One mask (B, 1, features) each, the same for every step and every evaluation."""
        rates = (self.dropout.residual, self.dropout.inner, self.dropout.residual)
        if not self.training or not any(rates):
            return ()
        widths = (self.width, INNER * self.width, self.width)
        return tuple(
            sequence_mask(like, (like.shape[0], 1, width), rate)
            for width, rate in zip(widths, rates, strict=True)
        )


class CrossmodalEquilibrium(nn.Module):
    """One cell for each pair; the state is the tuple of all their targets' states.

    `layer(f, z0, *inputs)` finds and differentiates the fixed points of all pairs at once, from
    z = 0: they share evaluations, and a sample has converged when all of its sequences have.
    """

    def __init__(self, layer: nn.Module, cells: Mapping[str, CrossmodalCell]) -> None:
        super().__init__()
        self.layer = layer
        self.cells = nn.ModuleDict(cells)

    def forward(self, pairs: Mapping[str, Pair]) -> dict[str, Tensor]:
        """The equilibria (B, T, width), by the names of the pairs."""
        parts = [
            (*_of_samples(p.seen), *self._cell(n).inputs(p.target, p.source))
            for n, p in pairs.items()
        ]
        z0 = tuple(torch.zeros_like(pair.target) for pair in pairs.values())
        seen = {name: pair.seen for name, pair in pairs.items()}
        f = partial(self.step, seen, [len(inputs) for inputs in parts])
        z: tuple[Tensor, ...] = self.layer(f, z0, *(part for inputs in parts for part in inputs))
        return dict(zip(pairs, z, strict=True))

    def step(
        self,
        seen: Mapping[str, View],
        counts: Sequence[int],
        z: tuple[Tensor, ...],
        *inputs: Tensor,
    ) -> tuple[Tensor, ...]:
        """One evaluation of every cell; `counts` gives the number of inputs of each.

        What a sample's padding hides is an input, since a solver may evaluate only some samples.
        """
        rest, states = list(inputs), []
        for (name, view), count, state in zip(seen.items(), counts, z, strict=True):
            own, rest = rest[:count], rest[count:]
            if view.blind is not None:
                view, own = View(own[0], own[1]), own[2:]
            states.append(self._cell(name)(state, view, *own))
        return tuple(states)

    def maps(self, pairs: Mapping[str, Pair]) -> dict[str, list[Tensor]]:
        """The weights (B, heads, T, S) at the fixed point, by the names of the pairs."""
        weights = {}
        for name, z in self(pairs).items():
            cell, pair = self._cell(name), pairs[name]
            offered = cell.source_norm(embedded(pair.source))
            asking = torch.where(of_a_step(pair.target), z, 0)
            weights[name] = [cell.attention.weights(asking, offered, pair.seen)]
        return weights

    def _cell(self, name: str) -> CrossmodalCell:
        cell = self.cells[name]
        assert isinstance(cell, CrossmodalCell)
        return cell


def of_a_step(target: Tensor) -> Tensor:
    """(B, T, 1), False where a target (B, T, width) is padding: where it has no position."""
    return target[..., :1] != 0


def _of_samples(seen: View) -> tuple[Tensor, ...]:
    """The masks that differ from sample to sample, (B, ...); none where all see the same."""
    return () if seen.visible is None or seen.blind is None else (seen.visible, seen.blind)
