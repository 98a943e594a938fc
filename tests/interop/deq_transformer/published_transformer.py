"""Published configurations and state dicts of the equilibrium transformer, made up from layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equipoise.equilibrium import Equilibrium, FixedPoint, JacobianFree
from equipoise.interop.deq_transformer.weights import published_name
from equipoise.models import DEQTransformer

CONFIG: dict[str, Any] = {
    "n_token": 40, "cutoffs": [10, 20], "d_model": 12, "d_embed": 16, "n_head": 2, "d_head": 6,
    "d_inner": 20, "div_val": 2, "pre_lnorm": False, "mem_len": 5, "local_size": 0,
    "f_solver": "anderson", "f_thres": 9, "b_solver": "broyden", "b_thres": 11, "stop_mode": "rel",
}  # fmt: skip


def published(
    *, weight_norm: bool = True, divisor: int = 2, embedding_width: int = 16, **changes: Any
) -> dict[str, Tensor]:
    """A state dict in the layout of 2021: kernels of width 1, both names of what is tied."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocabulary": 40, "cutoffs": [10, 20], "width": 12, "heads": 2, "inner_width": 20,
        "embedding_width": embedding_width, "divisor": divisor, "weight_norm": weight_norm,
    }  # fmt: skip
    layer = Equilibrium(FixedPoint(), JacobianFree())
    model = DEQTransformer(layer, **shape, **changes)
    weights = {published_name(n): t.clone() for n, t in model.state_dict().items()}
    return {name: _as_kernel(name, tensor) for name, tensor in weights.items()}


def _as_kernel(name: str, tensor: Tensor) -> Tensor:
    kernels = ("inject_conv.weight", "qkv_net", "r_net", "o_net")
    is_kernel = tensor.dim() == 2 and any(kernel in name for kernel in kernels)
    return tensor.unsqueeze(-1) if is_kernel else tensor


def of_2020(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in the layout of 2020."""
    older: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if "_projs." in name:
            name = name.removesuffix(".weight")
        if "pos_ff" in name and "weight" in name:
            tensor = tensor.unsqueeze(-1)
        older[name] = tensor
        if name.startswith("func."):
            older[f"deq.{name}"] = tensor
            older[f"deq.func_copy.{name[5:]}"] = torch.zeros(1)
            older[f"func_copy.{name[5:]}"] = torch.zeros(1)
    return older
