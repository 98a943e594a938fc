"""The stem of MDEQ: from the image to the injection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equipoise.models.mdeq.convolution import convolution_norm_relu


class Stem(nn.Module):
    """Turn the image (B, image_channels, H, W) into the injection (B, C, H / stride, W / stride).

    Two 3x3 convolutions, or as many as there are halvings, then a 1x1 `projection`. A network of
    at most two branches at full resolution has no projection.

    Source: 2006.08656; the rule for the projection is the published code's.
    """

    def __init__(self, image_channels: int, channels: int, halvings: int, branches: int) -> None:
        """Build the stem; `halvings` is log2 of its stride, `branches` counts the resolutions."""
        super().__init__()
        inputs = [image_channels] + [channels] * (max(2, halvings) - 1)
        self.layers = nn.Sequential(
            *(
                convolution_norm_relu(count, channels, 3, stride=2 if index < halvings else 1)
                for index, count in enumerate(inputs)
            )
        )
        self.projection: nn.Module = (
            nn.Identity()
            if halvings == 0 and branches <= 2
            else convolution_norm_relu(channels, channels, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the injection into the branch of highest resolution."""
        injection: Tensor = self.projection(self.layers(image))
        return injection


def zero_state(injection: Tensor, channels: Sequence[int]) -> tuple[Tensor, ...]:
    """Return zeros (B, C_i, H / 2^i, W / 2^i) for every branch i of an injection (B, C_0, H, W).

    Under autocast the injection may be of half precision, where f still answers in float32, the
    state's dtype; otherwise the state has the injection's dtype.
    """
    autocast = torch.is_autocast_enabled(injection.device.type)
    dtype = torch.float32 if autocast else injection.dtype
    batch, _, height, width = injection.shape
    return tuple(
        injection.new_zeros((batch, count, height >> branch, width >> branch), dtype=dtype)
        for branch, count in enumerate(channels)
    )
