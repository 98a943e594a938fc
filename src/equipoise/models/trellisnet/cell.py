"""One level of a trellis network; its equilibrium is a network of infinitely many."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from equipoise.nn import ComputedWeight
from equipoise.nn.computed_weight import ComputedLinear


class TapWeight(ComputedWeight):
    """A weight (out, 2 in) on [features at t - d | features at t], which may be normalised.

    w = length * direction / ||direction|| by rows, or `direction` itself. In training, each time
    that the weight is computed, entries of the first half of `direction` are dropped with
    probability `drop`, and the rest of that half is scaled up.

    Source: Bai et al. 2019 (arXiv 1810.06682), section 5, after Merity et al. 2018 (1708.02182).
    """

    def __init__(self, weight: Tensor, *, normalised: bool, drop: float) -> None:
        """Take the values of `weight`; raises ValueError when `drop` lies outside [0, 1)."""
        super().__init__()
        if not 0 <= drop < 1:
            raise ValueError(f"weight_drop must lie in [0, 1), got {drop}")
        self.drop = drop
        self.direction = nn.Parameter(weight.detach().clone())
        self.length = nn.Parameter(row_norms(self.direction).detach()) if normalised else None

    def compute(self) -> Tensor:
        """The weight; in training with a new mask."""
        direction = self._dropped()
        if self.length is None:
            return direction
        return direction * (self.length / row_norms(direction))

    def _dropped(self) -> Tensor:
        if not self.training or self.drop == 0:
            return self.direction
        earlier, present = self.direction.chunk(2, dim=1)
        return torch.cat((functional.dropout(earlier, self.drop), present), dim=1)


def tap_linear(
    source: int, target: int, *, bias: bool, normalised: bool, drop: float
) -> ComputedLinear:
    """A map (..., 2 source) -> (..., target) with PyTorch's initial weights and no bias yet.

    At the published widths these are as large as the published draw from N(0, 0.01).
    """
    plain = nn.Linear(2 * source, target, bias=bias)
    if bias:
        nn.init.zeros_(plain.bias)
    return ComputedLinear(plain, lambda w: TapWeight(w, normalised=normalised, drop=drop))


def row_norms(weight: Tensor) -> Tensor:
    """(out, in) -> (out, 1)."""
    return torch.linalg.vector_norm(weight, dim=1, keepdim=True)


class TrellisCell(nn.Module):
    """f(z, injection, earlier, *masks): a gated convolution of width 2, on z = [h | c].

        [i | o | g | f] = W_h [h_(t-d) | h_t] + injection_t,  injection_t = W_x [x_(t-d) | x_t]
        c'_t = sigmoid(f) c_(t-d) + sigmoid(i) tanh(g),       h'_t = sigmoid(o) tanh(c'_t)

    z and f are (B, T, 2 width). `earlier` (B, 1, 2 width) stands for all steps before the segment;
    the inputs there are zero.

    Source: Bai et al. 2019 (arXiv 1810.06682), section 4; 1909.01377, section 4.1.
    """

    def __init__(
        self,
        input_width: int,
        width: int,
        *,
        weight_norm: bool,
        weight_drop: float = 0.0,
        injection_bias: bool = True,
    ) -> None:
        """Build the two maps; `injection_bias` gives the first one a bias too."""
        super().__init__()
        taps = partial(tap_linear, normalised=weight_norm, drop=weight_drop)
        self.width = width
        self.inward = taps(input_width, 4 * width, bias=injection_bias)
        self.recurrent = taps(width, 4 * width, bias=True)

    def inject(self, features: Tensor) -> Tensor:
        """(B, T, input width) -> (B, T, 4 width), without dilation."""
        injection: Tensor = self.inward(input_taps(features, 1))
        return injection

    def forward(
        self, dilation: int, z: Tensor, injection: Tensor, earlier: Tensor, *masks: Tensor
    ) -> Tensor:
        """One level; the only mask (B, 1, width) drops hidden channels at its input."""
        before = delayed(z, earlier.to(z.dtype), dilation)
        hidden, hidden_before = z[..., : self.width], before[..., : self.width]
        taps = torch.cat((hidden_before, hidden), dim=-1)
        if masks:
            taps = taps * masks[0].repeat(1, 1, 2)
        i, o, g, f = (self.recurrent(taps) + injection).chunk(4, dim=-1)
        c = torch.sigmoid(f) * before[..., self.width :] + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat((torch.sigmoid(o) * torch.tanh(c), c), dim=-1)


def input_taps(features: Tensor, dilation: int) -> Tensor:
    """(B, T, C) -> [features at t - dilation | at t] (B, T, 2 C), zeros before the start."""
    nothing = features.new_zeros(1, 1, 1).expand(features.shape[0], 1, features.shape[2])
    return torch.cat((delayed(features, nothing, dilation), features), dim=-1)


def delayed(sequence: Tensor, earlier: Tensor, steps: int) -> Tensor:
    """(B, T, C) delayed by `steps`, preceded by `steps` copies of `earlier` (B, 1, C)."""
    length = sequence.shape[1]
    front = earlier.expand(-1, steps, -1)
    return torch.cat((front, sequence), dim=1)[:, :length]
