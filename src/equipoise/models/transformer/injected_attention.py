"""Kernel attention inside the equilibrium transformer: any form of it, with an injection."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equipoise.nn import AttentionForm, KernelSmoother, Scene, SetFilter, linear
from equipoise.nn.positional_kernels import in_heads

PUBLISHED = AttentionForm(kernel="exponential", positions="product")


class PlacedScene(NamedTuple):
    """What the smoother needs, and what the keys' positions add to query, key and value.

    shifts: (memory + T, parts * width), or None where positions are in the kernel alone.
    """

    scene: Scene
    shifts: Tensor | None


class InjectedKernelAttention(nn.Module):
    """o = W_o sum_k w(q, k) v(k), with q, k, v = W [memory; features] + injection.

    It is to any kernel what `RelativeAttention` is to the published one, and has the same
    interface. Positions that are added to the features are added before W, at every evaluation. In
    a symmetric kernel query and key are the same, so they share one injection.

    Source: 1908.11775 for the kernels; 1909.01377, section 4.2, for the injection.
    """

    def __init__(
        self, form: AttentionForm, width: int, heads: int, *, weight_norm: bool = False
    ) -> None:
        """Raises ValueError unless `heads` divides `width`."""
        super().__init__()
        self.form = form
        self.heads = heads
        self.parts = injected_parts(form)
        self.smoother = KernelSmoother(form, width, heads)
        self.query_key_value = linear(
            width, self.parts * width, weight_norm=weight_norm, bias=False
        )
        self.output = linear(width, width, weight_norm=weight_norm)

    def scene(self, positions: Tensor, length: int, window: int | None = None) -> PlacedScene:
        """Prepare the rows of distances memory + T - 1 .. 0, the farthest first; T is `length`."""
        reach = len(positions)

        def table(steps: Tensor) -> Tensor:
            return positions[(reach - 1 - steps).clamp(max=reach - 1)]

        view = SetFilter(length, reach, causal=True, window=window, device=positions.device)
        return PlacedScene(self.smoother.scene(view, table), self._shifts(positions.flip(0)))

    def remember(self, memory: Tensor, injection: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, M, width) of memory (B, M, width), injection (B, M, parts width)."""
        _, key, value = self._parts(self.query_key_value(memory) + injection)
        return key, value

    def forward(
        self,
        features: Tensor,
        injection: Tensor,
        key: Tensor,
        value: Tensor,
        scene: PlacedScene,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """(B, T, width), (B, T, parts width), the memory's key and value -> (B, T, width).

        dropped (B, heads, T, M + T): a mask on the attention's weights.
        """
        query, new_key, new_value = self._parts(self.query_key_value(features) + injection)
        keys = torch.cat((key.to(new_key.dtype), new_key), dim=1)
        values = torch.cat((value.to(new_value.dtype), new_value), dim=1)
        if scene.shifts is not None:
            of_query, of_key, of_value = self._parts(scene.shifts.to(keys.dtype))
            query, keys = query + of_query[keys.shape[1] - query.shape[1] :], keys + of_key
            values = values + of_value
        heads = (in_heads(part, self.heads) for part in (query, keys, values))
        smoothed = self.smoother(*heads, scene.scene, dropped)
        attended: Tensor = self.output(smoothed.transpose(1, 2).flatten(2))
        return attended

    def _parts(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of (..., parts width)."""
        if self.form.symmetric:
            shared, value = projected.chunk(2, dim=-1)
            return shared, shared, value
        query, key, value = projected.chunk(3, dim=-1)
        return query, key, value

    def _shifts(self, places: Tensor) -> Tensor | None:
        """W t if positions are added before W, otherwise 0."""
        summed = self.form.positions == "direct_sum"
        if not (summed or self.form.value_positions):
            return None
        *others, value = self.query_key_value(places).chunk(self.parts, dim=-1)
        others = [part if summed else torch.zeros_like(part) for part in others]
        value = value if self.form.value_positions else torch.zeros_like(value)
        return torch.cat((*others, value), dim=-1)


def is_published(form: AttentionForm) -> bool:
    """Whether a form is the published one; settings that it does not use are ignored."""
    return replace(form, radius=PUBLISHED.radius, features=PUBLISHED.features) == PUBLISHED


def injected_parts(form: AttentionForm) -> int:
    """How many widths an injection has: 3 for query, key and value, 2 if the first two are one."""
    return 2 if form.symmetric else 3
