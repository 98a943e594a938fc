"""Measures of whether learned features have collapsed: spread, rank and cross-correlation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

LEAST_SPREAD = 0.1
LEAST_RANK = 2.0
FEATURES_IN_DOUBLE = 4096
"""Up to this many features, their products are summed in float64, which takes 128 MiB."""


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """The number of directions in which features (N, h) vary: 1 to h, or 0 if nothing varies.

    exp of the entropy of the centred features' singular values, which are first divided by their
    sum. They are computed from the covariance (h, h) in float64; singular values that rounding
    alone can produce count as 0. nan if the features are not finite.
    Source: Roy and Vetterli 2007 (The effective rank), definition 1.
    """
    rounding = torch.finfo(features.dtype).eps ** 2
    rows = features.detach().cpu().double()
    if not rows.isfinite().all():
        return float("nan")
    centred = rows - rows.mean(dim=0)
    centred = centred if len(rows) >= rows.shape[1] else centred.T
    squares = torch.linalg.eigvalsh(centred.T @ centred)
    own = len(squares) * torch.finfo(squares.dtype).eps * float(squares[-1])
    noise = max(rounding * float(rows.square().sum()), own)
    singular = squares[squares > noise].sqrt()
    if not len(singular):
        return 0.0
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


@torch.no_grad()
def spread(features: Tensor) -> float:
    """How much unit-length features (N, h) differ: about 1 if spread evenly, 0 if equal.

    Each row is divided by its length; the result is the mean of the features' standard deviations,
    times sqrt(h). Features that are never negative spread less: 0.3 to 0.7 is healthy.
    Source: Chen and He 2021 (arXiv 2011.10566), section 4.1.
    """
    unit = functional.normalize(features.detach().cpu().double(), dim=1)
    return float(unit.std(dim=0, correction=0).mean() * unit.shape[1] ** 0.5)


def collapse_warning(rank: float, spread: float, features: int) -> str | None:
    """A warning with advice if embeddings have collapsed; None if they have not.

    rank: the effective rank, of at most `features`. spread: see `spread`.
    """
    advice = (
        "lower optimizer.lr, raise task.batch_size, or give the off-diagonal of the "
        "cross-correlation more weight"
    )
    if not spread >= LEAST_SPREAD:
        return (
            f"the embeddings are collapsing: they hardly differ between samples (spread "
            f"{spread:.2g}, where well spread ones have about 1); {advice}"
        )
    if not rank >= min(LEAST_RANK, features):
        return (
            f"the embeddings are collapsing: they vary in {rank:.1f} of {features} directions "
            f"(effective rank); {advice}"
        )
    return None


class CorrelationMetric(Metric):
    """The cross-correlation (d, d) of two views' embeddings over a whole split.

    Element (i, j) correlates feature i of the first view with feature j of the second one, over all
    samples of all batches and processes, as if they were one batch. A feature that does not vary
    has zeros in its row and column.

    unit_length: divide each row by its length first. unbiased: compute standard deviations with
    N - 1, as published with Barlow-Twins-HSIC, but the mean product with N: identical views then
    have (N - 1) / N on the diagonal instead of 1. eps: added to variances, as in a batch norm. Sums
    are kept in float64, or in float32 above 4,096 features and on machines with MPS, which has no
    float64.
    Source: Zbontar et al. 2021 (arXiv 2103.03230), eq. 2.
    """

    full_state_update = False
    count: Tensor
    sums: Tensor
    squares: Tensor
    products: Tensor

    def __init__(
        self, features: int, unit_length: bool, *, unbiased: bool = False, eps: float = 0.0
    ) -> None:
        super().__init__()
        self.unit_length = unit_length
        self.unbiased = unbiased
        self.eps = eps
        double = features <= FEATURES_IN_DOUBLE and not torch.backends.mps.is_available()
        kind = torch.float64 if double else torch.float32
        shapes = {"count": (), "sums": (2, features), "squares": (2, features)}
        for name, shape in {**shapes, "products": (features, features)}.items():
            self.add_state(name, torch.zeros(shape, dtype=kind), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, first: Tensor, second: Tensor) -> None:
        """Add a batch of embeddings (B, d) of both views, as the projector returns them."""
        views = torch.stack([first, second]).to(self.sums)
        if self.unit_length:
            views = functional.normalize(views, dim=2)
        self.count += len(first)
        self.sums += views.sum(dim=1)
        self.squares += views.square().sum(dim=1)
        with torch.autocast(views.device.type, enabled=False):
            self.products += views[0].T @ views[1]

    def compute(self) -> Tensor:
        """The cross-correlation (d, d); zeros without samples."""
        count = self.count.clamp(min=1)
        means, mean_squares = self.sums / count, self.squares / count
        variances = mean_squares - means.square()
        # smaller variances are only rounding errors of a constant feature
        varying = variances > torch.finfo(variances.dtype).eps ** 0.75 * mean_squares
        if self.unbiased:
            variances = variances * count / (count - 1).clamp(min=1)
        scales = torch.where(varying, (variances.clamp(min=0) + self.eps).rsqrt(), 0.0)
        covariance = self.products / count - means[0].unsqueeze(1) * means[1]
        return scales[0].unsqueeze(1) * covariance * scales[1]
