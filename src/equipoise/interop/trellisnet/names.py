"""The published names of the explicit trellis network's parameters."""

from __future__ import annotations

from equipoise.interop.trellis_weights import ends_name

PREFIX = "tnet.full_conv"


def published_name(name: str, weight_norm: bool = True) -> str:
    """Return the published name of our parameter `name`, without wrappers and weight drop's `_raw`.

    Without weight norm the directions are the weights.
    """
    direction = "_v" if weight_norm else ""
    own = {
        "cell.inward.weight.direction": f"{PREFIX}.weight1{direction}",
        "cell.inward.weight.length": f"{PREFIX}.weight1_g",
        "cell.recurrent.weight.direction": f"{PREFIX}.weight2{direction}",
        "cell.recurrent.weight.length": f"{PREFIX}.weight2_g",
        "cell.recurrent.bias": f"{PREFIX}.bias2",
    }
    return own.get(name) or ends_name(name) or name
