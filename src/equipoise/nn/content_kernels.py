"""Kernels on the content of queries and keys: logits of a softmax, or products of features."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

ContentKernelName = Literal["linear", "polynomial", "exponential", "rbf", "elu", "random_features"]
LEAST_FEATURE = 1e-10
ALIGNMENT = 16


class Exponential(nn.Module):
    """k(q, k) = exp(<q, k> / (w^2 sqrt(d))), w = 1 or a learned width for each head.

    Its logarithm is a product of queries and keys, so its weights are a softmax.
    Source: Vaswani et al. 2017 (arXiv 1706.03762), eq. 1, read as a kernel: 1908.11775, eq. 2.
    """

    takes_content_bias = True

    def __init__(self, heads: int, *, learned_width: bool) -> None:
        super().__init__()
        self.log_width = nn.Parameter(torch.zeros(heads)) if learned_width else None

    def factors(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key (B, H, *, d') whose product over sqrt(d) is log k(q, k).

        It may omit terms that are equal for all keys of a query: they cancel in the weights.
        """
        return self.narrowed(query), key

    def narrowed(self, query: Tensor) -> Tensor:
        """The query over w^2."""
        if self.log_width is None:
            return query
        return query * torch.exp(-2 * self.log_width).view(-1, 1, 1).to(query.dtype)


class RadialBasis(Exponential):
    """k(q, k) = exp(-|q - k|^2 / (w^2 sqrt(d))): a softmax with a bias for each key.

    |q|^2 cancels in the weights, and the rest, 2 <q, k> - |k|^2, is one product of queries and keys
    with two further entries: |k|^2, and its rounding error in half precision. Zeros follow, up to a
    width that fused attention takes. There is no bias on the content, since the kernel would no
    longer depend on a distance.
    Source: 1908.11775, section 3.2.
    """

    takes_content_bias = False

    def factors(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """[q, 1, ...] / w^2 and [2 k, -|k|^2, -rest, 0, ...], (B, H, *, d + 2 or a little more)."""
        exact = key.to(torch.promote_types(key.dtype, torch.float32))
        squared = torch.linalg.vecdot(exact, exact).unsqueeze(-1)
        rounded = squared.to(key.dtype)
        rest = (squared - rounded).to(key.dtype)
        further = aligned(query.shape[-1] + 2, query.dtype) - query.shape[-1]
        zeros = key.new_zeros(()).expand(*key.shape[:-1], further - 2)
        ones = functional.pad(query, (0, further), value=1.0)
        return self.narrowed(ones), torch.cat((2 * key, -rounded, -rest, zeros), dim=-1)


def aligned(width: int, dtype: torch.dtype) -> int:
    """The next width that is a multiple of 16 bytes, as fused attention takes and likes them."""
    entries = ALIGNMENT // dtype.itemsize
    return -(-width // entries) * entries


class KeyFeatures(NamedTuple):
    """phi(k) = exp(log_scale) features: features (B, H, K, F) and log_scale (B, H, K).

    Each key has its own log_scale, so its features depend on no other key; None: it is 0.
    """

    features: Tensor
    log_scale: Tensor | None = None


class Linear(nn.Module):
    """k(q, k) = <q, k>, which may be negative: the weights are then not those of an average.

    Source: 1908.11775, section 3.2, where it does not converge.
    """

    takes_content_bias = True

    def count(self, head_width: int) -> int:
        """The number of features F."""
        return head_width

    def of_queries(self, query: Tensor) -> Tensor:
        """(B, H, Q, d) -> (B, H, Q, F)."""
        return query

    def of_keys(self, key: Tensor) -> KeyFeatures:
        """(B, H, K, d) -> features (B, H, K, F)."""
        return KeyFeatures(key)

    def product(self, query: Tensor, key: Tensor) -> KeyFeatures:
        """k(q, k) for each pair, (B, H, Q, K), up to the factor exp(log_scale) of each key.

        It may omit terms that are equal for all keys of a query: they cancel in the weights.
        """
        features, log_scale = self.of_keys(key)
        return KeyFeatures(self.of_queries(query) @ features.transpose(-1, -2), log_scale)


class Polynomial(Linear):
    """k(q, k) = <q, k>^2, the product of the d^2 features x_i x_j.

    Source: 1908.11775, section 3.2.
    """

    def count(self, head_width: int) -> int:
        """d^2."""
        return head_width**2

    def of_queries(self, query: Tensor) -> Tensor:
        """The products of any two entries."""
        return (query.unsqueeze(-1) * query.unsqueeze(-2)).flatten(-2)

    def of_keys(self, key: Tensor) -> KeyFeatures:
        """The products of any two entries."""
        return KeyFeatures(self.of_queries(key))

    def product(self, query: Tensor, key: Tensor) -> KeyFeatures:
        """The square, without the d^2 features."""
        return KeyFeatures((query @ key.transpose(-1, -2)).square())


class Elu(Linear):
    """k(q, k) = <elu(q) + 1, elu(k) + 1>.

    Source: Katharopoulos et al. 2020 (arXiv 2006.16236), eq. 7.
    """

    def of_queries(self, query: Tensor) -> Tensor:
        """elu + 1, above 0: exp(x) below 0, where elu(x) + 1 would round to 0."""
        return torch.exp(query.clamp(max=0)) + functional.relu(query)

    def of_keys(self, key: Tensor) -> KeyFeatures:
        """elu + 1, above 0."""
        return KeyFeatures(self.of_queries(key))


class RandomFeatures(Linear):
    """An estimate of exp(<q, k> / sqrt(d)) from m positive features, whose mean is exactly that.

    phi_i(x) = exp(<w_i, x'> - |x'|^2 / 2) / sqrt(m), x' = x / d^(1/4), w_i normal and orthogonal in
    blocks of d. They are drawn once, when the kernel is built. As in the published code a small
    number is added to each feature over the largest, so that no kernel value rounds to 0.
    Source: FAVOR+, Choromanski et al. 2021 (arXiv 2009.14794), section 2.
    """

    directions: Tensor

    def __init__(self, head_width: int, features: int) -> None:
        super().__init__()
        self.register_buffer("directions", orthogonal_directions(head_width, features))

    def count(self, head_width: int) -> int:
        """m."""
        return len(self.directions)

    def of_queries(self, query: Tensor) -> Tensor:
        """Scaled to a largest feature of 1: a factor per query cancels in the weights."""
        exponents = self._exponents(query)
        return torch.exp(exponents - exponents.detach().amax(dim=-1, keepdim=True)) + LEAST_FEATURE

    def of_keys(self, key: Tensor) -> KeyFeatures:
        """Features over the key's largest, and its logarithm."""
        exponents = self._exponents(key)
        largest = exponents.detach().amax(dim=-1)
        return KeyFeatures(torch.exp(exponents - largest.unsqueeze(-1)) + LEAST_FEATURE, largest)

    def _exponents(self, features: Tensor) -> Tensor:
        scaled = features * features.shape[-1] ** -0.25
        projected = scaled @ self.directions.to(scaled.dtype).T
        return projected - scaled.square().sum(dim=-1, keepdim=True) / 2


def orthogonal_directions(width: int, count: int) -> Tensor:
    """(count, width): orthogonal in blocks of `width` rows, with lengths of normal vectors."""
    blocks = [_orthogonal(width) for _ in range(-(-count // width))]
    lengths = torch.randn(count, width).norm(dim=1, keepdim=True)
    return torch.cat(blocks)[:count] * lengths


def _orthogonal(width: int) -> Tensor:
    """A uniformly drawn rotation or reflection, which Q alone is not: its signs are LAPACK's.

    Source: Mezzadri 2007 (arXiv math-ph/0609050), section 5.
    """
    factors = torch.linalg.qr(torch.randn(width, width))
    return factors.Q * factors.R.diagonal().sign()


ContentKernel = Exponential | Linear


def content_kernel(
    name: ContentKernelName, heads: int, head_width: int, *, learned_width: bool, features: int
) -> ContentKernel:
    """The kernel of that name."""
    if name == "exponential":
        return Exponential(heads, learned_width=learned_width)
    if name == "rbf":
        return RadialBasis(heads, learned_width=learned_width)
    if name == "random_features":
        return RandomFeatures(head_width, features)
    return {"linear": Linear, "polynomial": Polynomial, "elu": Elu}[name]()
