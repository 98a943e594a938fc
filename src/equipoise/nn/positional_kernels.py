"""Which keys a query sees, and the factor of a kernel that depends on positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from equipoise.nn.computed_weight import INITIAL_STD

PositionsName = Literal["none", "direct_sum", "lookup", "product", "symmetric_product"]
PositionTable = Callable[[Tensor], Tensor]
"""Whole numbers of places or distances (n,) -> their rows (n, width)."""


@dataclass(eq=False)
class SetFilter:
    """Which of K keys each of Q queries sees; the queries stand at the last Q places of the keys.

    causal: no later keys · window: only this many latest keys, including the query's own (and no
    later ones) · present (B, K): False for padding; None: no padding.
    """

    queries: int
    keys: int
    causal: bool = False
    window: int | None = None
    present: Tensor | None = None
    device: torch.device | None = None

    @cached_property
    def distance(self) -> Tensor:
        """Steps from the key to the query, (Q, K), negative if the key comes later."""
        places = torch.arange(self.keys, device=self.device)
        return places[self.keys - self.queries :, None] - places

    @cached_property
    def visible(self) -> Tensor | None:
        """True where a query sees a key, (Q, K) or (B, 1, Q or 1, K); None if it sees all."""
        masks = []
        if (self.causal and self.queries > 1) or self.window is not None:
            masks.append(self.distance >= 0)
        if self.window is not None:
            masks.append(self.distance < self.window)
        if self.present is not None:
            masks.append(self.present[:, None, None])
        if not masks:
            return None
        visible = masks[0]
        for mask in masks[1:]:
            visible = visible & mask
        return visible

    @property
    def is_triangle(self) -> bool:
        """Whether it is only causal, without a memory, for which fused kernels have a flag."""
        alone = self.window is None and self.present is None
        return alone and self.causal and self.queries == self.keys


class PositionalKernel(nn.Module):
    """The factor of the kernel that depends on positions; this one has none."""

    def rows(self, table: PositionTable, view: SetFilter) -> tuple[Tensor, ...]:
        """The part of the positions that depends on neither the features nor the sample."""
        return ()

    def log_factor(self, query: Tensor, view: SetFilter, rows: tuple[Tensor, ...]) -> Tensor | None:
        """The logarithm of the factor for queries (B, H, Q, d), ([B,] H, Q, K); None: 1."""
        return None

    def content_query(self, query: Tensor) -> Tensor:
        """The query that the content kernel is given."""
        return query

    def profile(self, table: PositionTable, distances: int) -> Tensor | None:
        """The log factor by distance from 0, (H, distances), whatever the content; None: 1."""
        return None


class Lookup(PositionalKernel):
    """The factor exp(<q, a_(t_q - t_k)> / sqrt(d)), a learned for each clipped distance and head.

    `vectors` (2 radius + 1, heads, d): row `radius` is distance 0, lower rows are later keys.
    Source: Shaw et al. 2018 (arXiv 1803.02155), eq. 4; 1908.11775, section 3.3.
    """

    def __init__(self, heads: int, head_width: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        self.scale = head_width**-0.5
        drawn = torch.empty(2 * radius + 1, heads, head_width).normal_(std=INITIAL_STD)
        self.vectors = nn.Parameter(drawn)

    def log_factor(self, query: Tensor, view: SetFilter, rows: tuple[Tensor, ...]) -> Tensor:
        """One product for each distance, spread over the pairs."""
        by_distance = (query * self.scale) @ self.vectors.permute(1, 2, 0).to(query.dtype)
        index = view.distance.clamp(-self.radius, self.radius) + self.radius
        return by_distance.gather(-1, index.expand(*by_distance.shape[:2], *index.shape))


class AsymmetricProduct(PositionalKernel):
    """The factor exp(<q + b_p, t_(q - k) W_T> / sqrt(d)), and a bias b_c on the content's query.

    Source: Dai et al. 2019 (arXiv 1901.02860), section 3.3; 1908.11775, section 3.3.
    """

    def __init__(self, width: int, heads: int, *, content_bias: bool) -> None:
        super().__init__()
        head_width = width // heads
        self.scale = head_width**-0.5
        self.position = nn.Linear(width, width, bias=False)
        self.position_bias = nn.Parameter(torch.empty(heads, head_width).normal_(std=INITIAL_STD))
        drawn = torch.empty(heads, head_width).normal_(std=INITIAL_STD)
        self.content_bias = nn.Parameter(drawn) if content_bias else None

    def rows(self, table: PositionTable, view: SetFilter) -> tuple[Tensor, ...]:
        """(H, R, d): all distances, the farthest first, then one more or those of later keys."""
        lowest = -1 if view.causal or view.window is not None else -max(view.queries - 1, 1)
        steps = torch.arange(view.keys - 1, lowest - 1, -1, device=view.device)
        return (in_heads(self.position(table(steps)), len(self.position_bias)),)

    def log_factor(self, query: Tensor, view: SetFilter, rows: tuple[Tensor, ...]) -> Tensor:
        """Row i of `far` holds the distances from K - 1 down; query i needs those from i + K - Q.

        Reading from the Q-th entry on, in rows one entry shorter, shifts each row to its own.
        """
        position = (query + self.position_bias[:, None].to(query.dtype)) * self.scale
        far = position @ rows[0].transpose(-1, -2).to(query.dtype)
        flat = far.flatten(-2)[..., view.queries - 1 :]
        shorter = far.shape[-1] - 1
        near = flat[..., : view.queries * shorter].unflatten(-1, (view.queries, shorter))
        return near[..., : view.keys]

    def content_query(self, query: Tensor) -> Tensor:
        """The query and its bias."""
        if self.content_bias is None:
            return query
        return query + self.content_bias[:, None].to(query.dtype)

    def profile(self, table: PositionTable, distances: int) -> Tensor:
        """<b_p, t_distance W_T> / sqrt(d)."""
        steps = torch.arange(distances, device=self.position_bias.device)
        rows = in_heads(self.position(table(steps)), len(self.position_bias))
        return (rows * self.position_bias[:, None]).sum(dim=-1) * self.scale


class SymmetricProduct(PositionalKernel):
    """The factor exp(<t_q W_T, t_k W_T> / sqrt(d)) of the places of query and key.

    Places count from the first key: with a memory they are those within what is seen.
    Source: 1908.11775, eq. 8.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.position = nn.Linear(width, width, bias=False)

    def rows(self, table: PositionTable, view: SetFilter) -> tuple[Tensor, ...]:
        """Projected places of the queries and of the keys, (H, Q, d) and (H, K, d)."""
        places = table(torch.arange(view.keys, device=view.device))
        keys = in_heads(self.position(places), self.heads)
        return keys[:, view.keys - view.queries :], keys

    def log_factor(self, query: Tensor, view: SetFilter, rows: tuple[Tensor, ...]) -> Tensor:
        """(H, Q, K), the same for every sample."""
        return (rows[0] * self.scale) @ rows[1].transpose(-1, -2)

    def profile(self, table: PositionTable, distances: int) -> Tensor:
        """That of the last place and those before it."""
        steps = torch.arange(distances - 1, -1, -1, device=self.position.weight.device)
        places = in_heads(self.position(table(steps)), self.heads)
        return (places * places[:, :1]).sum(dim=-1) * self.scale


def positional_kernel(
    name: PositionsName, width: int, heads: int, *, radius: int, content_bias: bool
) -> PositionalKernel:
    """The factor of that name; a direct sum has none, its positions are in the features."""
    if name == "lookup":
        return Lookup(heads, width // heads, radius)
    if name == "product":
        return AsymmetricProduct(width, heads, content_bias=content_bias)
    if name == "symmetric_product":
        return SymmetricProduct(width, heads)
    return PositionalKernel()


def in_heads(features: Tensor, heads: int) -> Tensor:
    """(..., T, width) -> (..., heads, T, width / heads)."""
    return features.unflatten(-1, (heads, -1)).transpose(-2, -3)
