"""Smoothing with a kernel that is a product of features, in time linear in the length.

With k(q, k) = <phi(q), phi(k)> the sums over the keys do not depend on the query:

    out(q) = phi(q) S / phi(q) s,   S = sum_k phi(k) v(k)^T,   s = sum_k phi(k)

A causal filter makes S and s running sums. They are stored at the end of each chunk of positions,
and pairs are computed within a chunk; so the memory for the backward pass grows linearly too.

Source: Katharopoulos et al. 2020 (arXiv 2006.16236), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from equipoise.nn.content_kernels import KeyFeatures

CHUNK = 128


def smooth(query: Tensor, keys: KeyFeatures, value: Tensor) -> Tensor:
    """All queries see all keys: features (B, H, Q, F), (B, H, K, F), value (B, H, K, v)."""
    features = keys.features
    if keys.log_scale is not None:
        relative = keys.log_scale - keys.log_scale.amax(dim=-1, keepdim=True)
        features = features * torch.exp(relative).unsqueeze(-1)
    return ratio(query @ (features.transpose(-1, -2) @ with_ones(value)))


def smooth_causally(query: Tensor, keys: KeyFeatures, value: Tensor) -> Tensor:
    """Each query sees the keys up to its own; the first K - Q keys come before all queries.

    The sums at a place are divided by exp(largest log scale so far), so nothing overflows, and
    they do not depend on later keys.
    """
    log_scale = keys.log_scale
    if log_scale is None:
        log_scale = query.new_zeros(()).expand(keys.features.shape[:-1])
    largest = log_scale.cummax(dim=-1).values
    value = with_ones(value)
    total = query.new_zeros(*query.shape[:2], query.shape[-1], value.shape[-1])
    before = largest[..., :1]
    outputs = []
    sizes, memory = chunk_sizes(query.shape[-2], value.shape[-2])
    # Split, not sliced: the gradient of a slice is as long as the whole, for each chunk.
    asking: list[Tensor | None] = [*[None] * memory, *query.split(sizes[memory:], dim=2)]
    parts = (part.split(sizes, dim=2) for part in (keys.features, log_scale, largest, value))
    for queries, features, own, running, values in zip(asking, *parts, strict=True):
        if queries is not None:
            within = (queries @ features.transpose(-1, -2)) * shrinkage(own, running).tril()
            outputs.append(within @ values + shrinkage(before, running) * (queries @ total))
        last = running[..., -1:]
        added = (features * shrinkage(own, last).transpose(-1, -2)).transpose(-1, -2) @ values
        total = total * shrinkage(before, last) + added
        before = last
    return ratio(torch.cat(outputs, dim=-2))


def chunk_sizes(queries: int, keys: int) -> tuple[list[int], int]:
    """The sizes of all chunks of keys, and how many of them come before the first query."""
    lengths = (keys - queries, queries)
    before, own = ([min(CHUNK, length - b) for b in range(0, length, CHUNK)] for length in lengths)
    return before + own, len(before)


def shrinkage(own: Tensor, largest: Tensor) -> Tensor:
    """exp(own - largest) for log scales (B, H, k) and (B, H, q): (B, H, q, k), at most 1.

    Only for a later key, which the query does not see, can it exceed 1: it is clamped there.
    """
    return torch.exp((own.unsqueeze(-2) - largest.unsqueeze(-1)).clamp(max=0.0))


def with_ones(value: Tensor) -> Tensor:
    """The value with a last entry 1, whose smoothed sum is the normaliser."""
    return functional.pad(value, (0, 1), value=1.0)


def ratio(sums: Tensor) -> Tensor:
    """The weighted sums over their normaliser, the last entry; 0 if no key has any weight."""
    total = sums[..., -1:]
    return sums[..., :-1] / torch.where(total == 0, 1.0, total)
