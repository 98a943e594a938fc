"""Attention as a kernel smoother: out(x_q) = sum_k k(x_q, x_k) v(x_k) / sum_k k(x_q, x_k).

Four independent choices define an attention:

    content kernel     on features f: `equipoise.nn.content_kernels`
    positions          how the places t of query and key enter the kernel: `PositionalKernel`
    value              of the features alone, or of features and positions
    set filter         which keys a query sees: `SetFilter`

Source: Tsai et al. 2019 (arXiv 1908.11775), eq. 2 and section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.nn.content_kernels import (
    ContentKernelName,
    Exponential,
    KeyFeatures,
    Linear,
    aligned,
    content_kernel,
)
from equipoise.nn.linear_attention import smooth, smooth_causally
from equipoise.nn.positional_kernels import (
    PositionalKernel,
    PositionsName,
    PositionTable,
    SetFilter,
    SymmetricProduct,
    in_heads,
    positional_kernel,
)

WITH_WIDTH = ("exponential", "rbf")
WITHOUT_TABLE = ("none", "lookup")
LARGEST_EXPONENT = 80.0


@dataclass(frozen=True, kw_only=True)
class AttentionForm:
    """The kernel of an attention, without its set filter.

    symmetric: queries and keys share their weights · value_positions: values are computed from
    features and positions · learned_width: each head learns the width of its exponential or RBF
    kernel · radius: look-up distances beyond this share one vector · features: number of features
    of `random_features`.
    """

    kernel: ContentKernelName = "exponential"
    symmetric: bool = False
    positions: PositionsName = "product"
    value_positions: bool = False
    learned_width: bool = False
    radius: int = 16
    features: int = 256

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown name, a width that is not learned, or a low number."""
        for field, name, names in (
            ("kernel", self.kernel, get_args(ContentKernelName)),
            ("positions", self.positions, get_args(PositionsName)),
        ):
            if name not in names:
                raise ValueError(f"{field} is {name!r}; choose {', '.join(names)}")
        if self.learned_width and self.kernel not in WITH_WIDTH:
            raise ValueError(
                f"learned_width is for the kernels {' and '.join(WITH_WIDTH)}; the {self.kernel} "
                "kernel has no width: leave it out"
            )
        if self.radius < 1 or self.features < 1:
            raise ValueError(
                f"radius and features must be at least 1, got {self.radius} and {self.features}"
            )


@dataclass(eq=False)
class Scene:
    """What a smoother needs besides the features: the set filter and the positions."""

    view: SetFilter
    rows: tuple[Tensor, ...] = ()


class KernelSmoother(nn.Module):
    """out = sum_k w(q, k) v(k), w(q, k) = k(q, k) / sum_k' k(q, k'), for each head.

    An exponential or RBF kernel runs as a softmax in torch's fused attention, with whatever
    positions add to its logits. A kernel of features runs in linear time if there is neither a
    window nor a positional factor and that costs less than all pairs; otherwise pair by pair.
    """

    def __init__(self, form: AttentionForm, width: int, heads: int) -> None:
        """`width`: of all heads together. Raises ValueError unless `heads` divides it."""
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        head_width = width // heads
        self.scale = head_width**-0.5
        self.kernel = content_kernel(
            form.kernel, heads, head_width,
            learned_width=form.learned_width, features=form.features,
        )  # fmt: skip
        self.positional = positional_kernel(
            form.positions, width, heads,
            radius=form.radius, content_bias=self.kernel.takes_content_bias,
        )  # fmt: skip

    def scene(self, view: SetFilter, table: PositionTable | None) -> Scene:
        """Prepare the positions for one forward. `table` may be None if they are not used."""
        return Scene(view, self.positional.rows(table, view) if table is not None else ())

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, scene: Scene, dropped: Tensor | None = None
    ) -> Tensor:
        """(B, H, Q, d), (B, H, K, d), (B, H, K, v) -> (B, H, Q, v).

        dropped (B, H, Q, K): a mask on the weights.
        """
        if dropped is not None:
            weights = self.weights(query, key, scene) * dropped
            return weights.to(value.dtype) @ value
        if isinstance(self.kernel, Exponential):
            return self._softmax(query, key, value, scene)
        if self._runs_linearly(self.kernel, key, scene.view):
            return self._linear_time(self.kernel, query, key, value, scene.view)
        return (self.weights(query, key, scene) @ value.to(wide(value))).to(value.dtype)

    def weights(self, query: Tensor, key: Tensor, scene: Scene) -> Tensor:
        """w(q, k) of every pair, (B, H, Q, K), 0 where a query does not see a key."""
        query, key = query.to(wide(query)), key.to(wide(key))
        factor = self.positional.log_factor(query, scene.view, scene.rows)
        content = self.positional.content_query(query)
        if isinstance(self.kernel, Exponential):
            content, key = self.kernel.factors(content, key)
            logits = (content * self.scale) @ key.transpose(-1, -2)
            return softmax(logits if factor is None else logits + factor, scene.view)
        return normalised(self.kernel.product(content, key), factor, scene.view)

    def _softmax(self, query: Tensor, key: Tensor, value: Tensor, scene: Scene) -> Tensor:
        assert isinstance(self.kernel, Exponential)
        view, width = scene.view, value.shape[-1]
        queries, keys = self.kernel.factors(self.positional.content_query(query), key)
        factor = None
        if isinstance(self.positional, SymmetricProduct):  # a product, so it is more of the same
            of_query, of_key = (row.to(query.dtype).expand(query.shape[0], -1, -1, -1)
                                for row in scene.rows)  # fmt: skip
            queries, keys = torch.cat((queries, of_query), -1), torch.cat((keys, of_key), -1)
        else:
            factor = self.positional.log_factor(query, view, scene.rows)
        triangle = view.is_triangle and factor is None
        mask = None if triangle else logit_mask(factor, view)
        if queries.shape[-1] != width:  # fused attention takes one width for all
            common = aligned(max(queries.shape[-1], width), queries.dtype)
            queries, keys, value = (widened(part, common) for part in (queries, keys, value))
        smoothed = functional.scaled_dot_product_attention(
            queries, keys, value, attn_mask=mask, is_causal=triangle, scale=self.scale
        )
        return smoothed[..., :width]

    def _runs_linearly(self, kernel: Linear, key: Tensor, view: SetFilter) -> bool:
        """Whether it can, with features for queries and keys cheaper than their pairs.

        An entry of the features takes about as long as two pairs: as many features as queries and
        keys is where the two paths, measured, meet; and a single query is always compared.
        """
        entries = kernel.count(key.shape[-1]) * (view.queries + view.keys)
        cheaper = entries < 2 * view.queries * view.keys
        return cheaper and view.window is None and type(self.positional) is PositionalKernel

    def _linear_time(
        self, kernel: Linear, query: Tensor, key: Tensor, value: Tensor, view: SetFilter
    ) -> Tensor:
        """In float32 at least: the sums run over all keys."""
        queries = kernel.of_queries(query.to(wide(query)))
        features, log_scale = kernel.of_keys(key.to(wide(key)))
        if view.present is not None:
            present = view.present[:, None]
            features = features * present.unsqueeze(-1)
            if log_scale is not None:
                log_scale = log_scale.masked_fill(~present, torch.finfo(log_scale.dtype).min)
        keys = KeyFeatures(features, log_scale)
        smoothing = smooth_causally if view.causal else smooth
        return smoothing(queries, keys, value.to(wide(value))).to(value.dtype)


class KernelAttention(nn.Module):
    """Queries (B, Q, width), keys (B, K, width) -> the heads' smoothed values, (B, Q, width).

    q = f_q W_q, k = f_k W_k, v = f_k W_v, with f + t instead of f if positions are a direct sum,
    and for values with positions. The output projection is left to the caller.
    """

    def __init__(self, form: AttentionForm, width: int, heads: int) -> None:
        """Raises ValueError unless `heads` divides `width`."""
        super().__init__()
        self.form = form
        self.heads = heads
        self.smoother = KernelSmoother(form, width, heads)
        self.query = nn.Linear(width, width, bias=False)
        self.key = None if form.symmetric else nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    def forward(
        self, queries: Tensor, keys: Tensor, view: SetFilter, table: PositionTable | None = None
    ) -> Tensor:
        """Smooth. `table`: rows of places and distances, which most positions need.

        Without value_positions, "none" and "lookup" do not read it. Raises ValueError if it is
        needed but missing.
        """
        query, key, value = self.projected(queries, keys, view, table)
        smoothed: Tensor = self.smoother(query, key, value, self.smoother.scene(view, table))
        return smoothed.transpose(1, 2).flatten(2)

    def weights(
        self, queries: Tensor, keys: Tensor, view: SetFilter, table: PositionTable | None = None
    ) -> Tensor:
        """The weight of each key for each query, (B, H, Q, K)."""
        query, key, _ = self.projected(queries, keys, view, table)
        return self.smoother.weights(query, key, self.smoother.scene(view, table))

    def projected(
        self, queries: Tensor, keys: Tensor, view: SetFilter, table: PositionTable | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value in heads, (B, H, *, d).

        Raises ValueError if positions are needed but there is no table of them.
        """
        values, form = keys, self.form
        if table is None and (form.value_positions or form.positions not in WITHOUT_TABLE):
            raise ValueError(f"positions ({form.positions}, or of the value) need a table of them")
        if table is not None and (form.value_positions or form.positions == "direct_sum"):
            placed = table(torch.arange(view.keys, device=keys.device)).to(keys.dtype)
            values = keys + placed if form.value_positions else keys
            if form.positions == "direct_sum":
                queries, keys = queries + placed[view.keys - view.queries :], keys + placed
        key = self.query if self.key is None else self.key
        return (
            in_heads(self.query(queries), self.heads),
            in_heads(key(keys), self.heads),
            in_heads(self.value(values), self.heads),
        )


def softmax(logits: Tensor, view: SetFilter) -> Tensor:
    """Softmax over the keys that a query sees; 0 at all others, even if it sees none."""
    if view.visible is None:
        return torch.softmax(logits, dim=-1)
    lowest = torch.finfo(logits.dtype).min
    weights = torch.softmax(logits.masked_fill(~view.visible, lowest), dim=-1)
    return weights.masked_fill(~view.visible, 0.0)


def logit_mask(factor: Tensor | None, view: SetFilter) -> Tensor | None:
    """What fused attention adds to its logits, or which of them it keeps."""
    if factor is None:
        return view.visible
    factor = factor if factor.dim() == 4 else factor.unsqueeze(0)
    return factor if view.visible is None else factor.masked_fill(~view.visible, float("-inf"))


def normalised(products: KeyFeatures, factor: Tensor | None, view: SetFilter) -> Tensor:
    """Weights from kernel values s = k(q, k), signed or not, and the logarithm of their factors.

    w = s exp(b - c) over its sum, where c is the largest b + log|s| of the query: so nothing
    overflows, and a kernel of 0 stays 0 with a gradient.
    """
    values, log_scale = products
    log_factor = torch.zeros_like(values) if factor is None else factor.expand_as(values)
    if log_scale is not None:
        log_factor = log_factor + log_scale.unsqueeze(-2)
    if view.visible is not None:
        log_factor = log_factor.masked_fill(~view.visible, float("-inf"))
    with torch.no_grad():
        largest = (log_factor + values.abs().log()).amax(dim=-1, keepdim=True)
        largest = torch.where(largest.isfinite(), largest, 0.0)
    weighted = values * torch.exp((log_factor - largest).clamp(max=LARGEST_EXPONENT))
    total = weighted.sum(dim=-1, keepdim=True)
    return weighted / torch.where(total == 0, 1.0, total)


def widened(features: Tensor, width: int) -> Tensor:
    """Zeros behind the last entries, up to `width` of them."""
    further = width - features.shape[-1]
    return functional.pad(features, (0, further)) if further else features


def wide(features: Tensor) -> torch.dtype:
    """float32, or the wider dtype of the features."""
    return torch.promote_types(features.dtype, torch.float32)
