"""Reading out pairs: a small network for each labelled type of pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.models.coupling_transformer.embedding import BOUND


class TypedLinear(nn.Module):
    """A linear map for each type: weight (types, out, in), bias (types, out)."""

    def __init__(self, types: int, source: int, target: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(types, target, source).uniform_(-BOUND, BOUND))
        self.bias = nn.Parameter(torch.zeros(types, target))

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """(M, in) -> (M, out): the first map takes the first counts[0] rows, and so on.

        A single `unbind` serves all types, since indexing each would create a gradient of full
        size.
        """
        maps = zip(x.split(counts), self.weight.unbind(), self.bias.unbind(), strict=True)
        return torch.cat([functional.linear(*part) for part in maps])

    def of_all_types(self, x: Tensor) -> Tensor:
        """(B, types or 1, P, in) -> (B, types, P, out)."""
        return x @ self.weight.mT + self.bias.unsqueeze(1)


class ResidualBlock(nn.Module):
    """x + dropout(W_2 dropout(relu(W_1 x))), with the maps of a type."""

    def __init__(self, types: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first = TypedLinear(types, width, width)
        self.second = TypedLinear(types, width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """(M, width) -> (M, width), as many rows of each type as `counts` says."""
        inner = self.dropout(functional.relu(self.first(x, counts)))
        changed: Tensor = x + self.dropout(self.second(inner, counts))
        return changed

    def of_all_types(self, x: Tensor) -> Tensor:
        """(B, types, P, width) -> (B, types, P, width)."""
        return x + self.second.of_all_types(functional.relu(self.first.of_all_types(x)))


class TypedHead(nn.Module):
    """Numbers for each pair from its state, by the network of its labelled type alone.

    The published code computes the networks of all types for all pairs, as one grouped convolution,
    and then picks one.
    """

    def __init__(
        self, types: int, width: int, inner: int, *, blocks: int, outputs: int, dropout: float
    ) -> None:
        super().__init__()
        self.types = types
        self.enter = TypedLinear(types, width, inner)
        self.blocks = nn.ModuleList(ResidualBlock(types, inner, dropout) for _ in range(blocks))
        self.leave = TypedLinear(types, inner, outputs)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        """States (M, width) of pairs whose types are int64 (M,), from 0 -> (M, outputs)."""
        order = kind.argsort(stable=True)
        counts = kind.bincount(minlength=self.types).tolist()
        state = self.enter(x[order], counts)
        for block in self.blocks:
            state = block(state, counts)
        outputs: Tensor = self.leave(state, counts)
        return outputs[order.argsort()]

    @torch.no_grad()
    def of_all_types(self, x: Tensor) -> Tensor:
        """(B, P, width) -> (B, types, P), the first output of every type's network."""
        state = self.enter.of_all_types(x.unsqueeze(1))
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            state = block.of_all_types(state)
        return self.leave.of_all_types(state)[..., 0]
