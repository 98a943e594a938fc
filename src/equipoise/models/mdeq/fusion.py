"""The multiscale fusion of MDEQ: every resolution hears all the others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import cast

from torch import Tensor, nn

from equipoise.models.mdeq.convolution import convolution, normalised_convolution


def upward_path(
    source: int, target: int, doublings: int, groups: int, affine: bool, weight_norm: bool
) -> nn.Sequential:
    """Return the way to a higher resolution: 1x1 convolution, group norm, nearest upsampling.

    `source` and `target` are channels; the size grows by 2^doublings.
    """
    make = normalised_convolution if weight_norm else convolution
    return nn.Sequential(
        OrderedDict(
            conv=make(source, target, 1),
            norm=nn.GroupNorm(groups, target, affine=affine),
            upsample=nn.Upsample(scale_factor=2**doublings, mode="nearest"),
        )
    )


def downward_path(
    source: int, target: int, halvings: int, groups: int, affine: bool, weight_norm: bool
) -> nn.Sequential:
    """Return the way to a lower resolution: one 3x3 convolution of stride 2 for each halving.

    Only the last changes the channels, and only the last has no ReLU behind its group norm.
    """
    stages = [
        _halving(source, source if more else target, groups, affine, weight_norm)
        for more in reversed(range(halvings))
    ]
    for stage in stages[:-1]:
        stage.append(nn.ReLU())
    return nn.Sequential(*stages)


def _halving(
    source: int, target: int, groups: int, affine: bool, weight_norm: bool
) -> nn.Sequential:
    make = normalised_convolution if weight_norm else convolution
    return nn.Sequential(
        OrderedDict(
            conv=make(source, target, 3, stride=2),
            norm=nn.GroupNorm(groups, target, affine=affine),
        )
    )


class Fusion(nn.Module):
    """Sum over the branches: y_i = b_i + sum of up(b_j), j > i, + sum of down(b_j), j < i.

    Source: 2006.08656 (multi-resolution fusion).
    """

    def __init__(
        self, channels: Sequence[int], groups: int, affine: bool, weight_norm: bool = False
    ) -> None:
        """Build the paths between all pairs of branches; `paths[i][str(j)]` leads from j to i."""
        super().__init__()
        self.paths = nn.ModuleList(
            nn.ModuleDict(
                {
                    str(j): (upward_path if j > i else downward_path)(
                        source, target, abs(i - j), groups, affine, weight_norm
                    )
                    for j, source in enumerate(channels)
                    if j != i
                }
            )
            for i, target in enumerate(channels)
        )

    def forward(self, branches: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the fused branches, each of the shape of its own branch."""
        return tuple(self._fuse(i, branches) for i in range(len(branches)))

    def _fuse(self, target: int, branches: tuple[Tensor, ...]) -> Tensor:
        paths = cast(nn.ModuleDict, self.paths[target])
        return reduce(
            add,
            (b if source == target else paths[str(source)](b) for source, b in enumerate(branches)),
        )


def post_fusion(channels: int, groups: int, affine: bool, weight_norm: bool) -> nn.Sequential:
    """Return ReLU, 1x1 convolution and group norm, the last step of f in a branch.

    Its norm has half of the groups of all the others, as in the published code.
    """
    make = normalised_convolution if weight_norm else convolution
    return nn.Sequential(
        OrderedDict(
            relu=nn.ReLU(),
            conv=make(channels, channels, 1),
            norm=nn.GroupNorm(groups // 2, channels, affine=affine),
        )
    )
