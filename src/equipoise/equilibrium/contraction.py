"""How fast the residuals of a solve fall, and how many evaluations a tolerance therefore needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Contraction:
    """factor (B,): by which an evaluation multiplies the residual; needed (B,): evaluations."""

    factor: Tensor
    needed: Tensor


def contraction_of(trace: Tensor, tol: float) -> Contraction:
    """The contraction of each sample from the residuals (nfe, B) of all evaluations of a solve.

    The best residual up to an evaluation falls as factor^evaluation: the factor is that of the line
    through its logarithm, by least squares, up to where the sample has reached `tol`. needed: the
    evaluation that has reached tol, or where that line from the last one reaches it; infinite where
    the residual does not fall. Source of the linear rate: Ortega and Rheinboldt 1970, section 9.2.
    """
    finite = trace.double().nan_to_num(nan=torch.inf, posinf=torch.inf)
    best = finite.cummin(dim=0).values.clamp(min=torch.finfo(torch.float32).tiny)
    reached = best <= tol
    evaluations = len(best)
    first = torch.where(reached.any(0), reached.double().argmax(0) + 1, evaluations)
    slope = _slope(best.clamp(max=torch.finfo(torch.float32).max).log(), first)
    left = (best[-1].log() - math.log(tol)).clamp(min=0.0)
    more = torch.where(
        slope < 0, left / -slope.clamp(max=-torch.finfo(slope.dtype).tiny), torch.inf
    )
    needed = torch.where(reached[-1], first.double(), evaluations + more)
    return Contraction(slope.exp(), needed)


def _slope(logarithms: Tensor, counted: Tensor) -> Tensor:
    """Per column the slope of the line through its first `counted` (B,) values; 0 for only one."""
    place = torch.arange(len(logarithms), dtype=logarithms.dtype, device=logarithms.device)
    weight = (place.unsqueeze(1) < counted).to(logarithms.dtype)
    total = weight.sum(0)
    x = place.unsqueeze(1) - (weight * place.unsqueeze(1)).sum(0) / total
    spread = (weight * x.square()).sum(0)
    moment = (weight * x * logarithms).sum(0)
    return torch.where(spread > 0, moment / spread.clamp(min=1e-12), 0.0)


def budget_for(needed: Tensor, fraction: float, margin: float, least: int, most: int) -> int:
    """The evaluations with which `fraction` of the samples, needed (B,), reach the tolerance.

    margin: the part of them that is added. The result lies between `least` and `most`; costs one
    host-device sync.
    """
    ordered = needed.sort().values
    place = min(max(math.ceil(fraction * len(ordered)) - 1, 0), len(ordered) - 1)
    wanted = float(ordered[place]) * (1.0 + margin)
    return most if not math.isfinite(wanted) else min(max(math.ceil(wanted), least), most)
