"""LARS as Barlow Twins uses it: steps scaled to the size of weights, plain for biases and norms.

Only `optimizer=lars` imports this module, and with it the package timm.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from equipoise.errors import UserError

try:
    from timm.optim.lars import Lars
except ImportError as error:
    raise UserError(
        "optimizer=lars needs the package timm: pip install 'equipoise[ssl]', or choose "
        "optimizer=sgd"
    ) from error


class LARS(Lars):
    """timm's LARS with two parameter groups: first weights, then biases and norms.

    Parameters of more than one dimension are decayed, and their update is scaled by
    trust_coefficient |w| / |gradient|; all others, at the rate `bias_lr` (None: `lr`), are neither
    decayed nor scaled. With `trust_clip`, the scaled rate is at most the rate itself.

    Raises ValueError if it is given groups of parameters, since it forms its groups itself.

    Source: You et al. 2017 (arXiv 1708.03888), algorithm 1, and the groups of the code published
    with Zbontar et al. 2021 (arXiv 2103.03230); the clip is that of LARC, in NVIDIA's apex.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        bias_lr: float | None = None,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust_coefficient: float = 0.001,
        trust_clip: bool = False,
    ) -> None:
        parameters = list(params)
        if not all(isinstance(parameter, Tensor) for parameter in parameters):
            raise ValueError("LARS forms its groups itself: give it parameters, not groups of them")
        weights: dict[str, Any] = {
            "params": [parameter for parameter in parameters if parameter.dim() > 1],
            "always_adapt": True,  # by default timm adapts only where weights are decayed
        }
        plain: dict[str, Any] = {
            "params": [parameter for parameter in parameters if parameter.dim() <= 1],
            "lr": lr if bias_lr is None else bias_lr,
            "weight_decay": 0.0,
        }
        super().__init__(
            [group for group in (weights, plain) if group["params"]],
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            trust_coeff=trust_coefficient,
            trust_clip=trust_clip,
        )
