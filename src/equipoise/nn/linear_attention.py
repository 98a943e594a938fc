"""Smoothing with a kernel that is a product of features, in time linear in the length.

With k(q, k) = <phi(q), phi(k)> the sums over the keys do not depend on the query:

    out(q) = phi(q) S / phi(q) s,   S = sum_k phi(k) v(k)^T,   s = sum_k phi(k)

A causal filter makes S and s running sums. They are taken at the end of each chunk of positions,
and within a chunk the pairs are computed; so what is kept for the backward pass grows linearly too.

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
        relative = keys.log_scale - keys.log_scale[..., -1:]
        features = features * torch.exp(relative).unsqueeze(-1)
    return ratio(query @ (features.transpose(-1, -2) @ with_ones(value)))


def smooth_causally(query: Tensor, keys: KeyFeatures, value: Tensor) -> Tensor:
    """Each query sees the keys up to its own; the first K - Q keys come before all queries."""
    length, reach = query.shape[-2], keys.features.shape[-2]
    log_scale = keys.log_scale
    if log_scale is None:
        log_scale = query.new_zeros(()).expand(keys.features.shape[:-1])
    value = with_ones(value)
    total = query.new_zeros(*query.shape[:2], query.shape[-1], value.shape[-1])
    before = log_scale[..., :1]
    outputs = []
    for begin, end in chunks(length, reach):
        features, scale, of_chunk = (
            part[:, :, begin:end] for part in (keys.features, log_scale, value)
        )
        if begin >= reach - length:
            first = begin - (reach - length)
            asking = query[:, :, first : first + end - begin]
            within = (asking @ features.transpose(-1, -2)) * decay(scale, scale).tril()
            earlier = decay(scale, before) * (asking @ total)
            outputs.append(within @ of_chunk + earlier)
        last = scale[..., -1:]
        grown = (features * decay(last, scale).transpose(-1, -2)).transpose(-1, -2) @ of_chunk
        total = total * decay(last, before) + grown
        before = last
    return ratio(torch.cat(outputs, dim=-2))


def chunks(length: int, reach: int) -> list[tuple[int, int]]:
    """Begin and end of the chunks: those before the first query, then those of the queries."""
    memory = reach - length
    begins = [*range(0, memory, CHUNK), *range(memory, reach, CHUNK)]
    return list(zip(begins, [*begins[1:], reach], strict=True))


def decay(later: Tensor, earlier: Tensor) -> Tensor:
    """exp(earlier - later) of log scales (B, H, q) and (B, H, k) that rise: (B, H, q, k), <= 1.

    Above the diagonal, where they would fall, it is held at 1.
    """
    return torch.exp((earlier.unsqueeze(-2) - later.unsqueeze(-1)).clamp(max=0.0))


def with_ones(value: Tensor) -> Tensor:
    """The value with a last entry 1, whose smoothed sum is the normaliser."""
    return functional.pad(value, (0, 1), value=1.0)


def ratio(sums: Tensor) -> Tensor:
    """The weighted sums over their normaliser, the last entry; 0 where no key has any weight."""
    total = sums[..., -1:]
    return sums[..., :-1] / torch.where(total == 0, 1.0, total)
