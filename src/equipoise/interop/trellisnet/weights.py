"""The published weights of the explicit trellis network: their forms and their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from equipoise.interop.published_trellis import ENDS, taps_in_a_row
from equipoise.interop.published_weights import bare_entries, primary_entries

PREFIX = "tnet.full_conv"
SECOND_NAME = ("network.0.", "tnet.")
RAW = "_raw"


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return every weight once, without the wrapper of the weight drop.

    That wrapper renames weight1_v to module.*.weight1_v_raw; a weight1_v beside it is the dropped
    one of the latest forward. `network.0.*` are second names. Both taps of a kernel stand in one
    row, that of t - d first.
    """
    entries = bare_entries(checkpoint)
    lasting = {key: tensor for key, tensor in entries.items() if f"{key}{RAW}" not in entries}
    return taps_in_a_row(primary_entries(lasting, SECOND_NAME, renamed=_plain))


def published_name(name: str, weight_norm: bool = True) -> str:
    """Return the published name of our parameter `name`, without wrappers and weight drop's `_raw`.

    Without weight norm the directions are the weights.
    """
    direction = "_v" if weight_norm else ""
    names = {
        "cell.inward.weight.direction": f"{PREFIX}.weight1{direction}",
        "cell.inward.weight.length": f"{PREFIX}.weight1_g",
        "cell.recurrent.weight.direction": f"{PREFIX}.weight2{direction}",
        "cell.recurrent.weight.length": f"{PREFIX}.weight2_g",
        "cell.recurrent.bias": f"{PREFIX}.bias2",
    }
    return (names | ENDS).get(name, name)


def _plain(key: str) -> str:
    return key.replace(".module.", ".").removesuffix(RAW)
