"""One level of a trellis network, whose equilibrium is that of infinitely many."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from equipoise.models.trellisnet.weight import tap_linear


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
        """One level; the only mask (B, 1, width) drops hidden channels on their way in."""
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
    nothing = features.new_zeros(1, 1, 1).expand(len(features), 1, features.shape[2])
    return torch.cat((delayed(features, nothing, dilation), features), dim=-1)


def delayed(sequence: Tensor, earlier: Tensor, steps: int) -> Tensor:
    """(B, T, C) moved back by `steps`, behind so many copies of `earlier` (B, 1, C)."""
    length = sequence.shape[1]
    front = earlier.expand(-1, steps, -1)
    return torch.cat((front, sequence), dim=1)[:, :length]
