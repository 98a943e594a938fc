"""One state dict out of the published files of the explicit trellis network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from equipoise.interop.published_weights import bare_entries, merged
from equipoise.interop.trellis_weights import taps_in_a_row

SECOND_NAME = "network.0."
PRIMARY = "tnet."
RAW = "_raw"


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return every weight once, without the wrapper of the weight drop.

    That wrapper renames weight1_v to module.*.weight1_v_raw; a weight1_v beside it is the dropped
    one of the latest forward. `network.0.*` are second names. Both taps of a kernel stand in one
    row, that of t - d first.
    """
    weights: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    entries = bare_entries(checkpoint)
    for key, tensor in entries.items():
        if f"{key}{RAW}" in entries:
            continue
        target = second if key.startswith(SECOND_NAME) else weights
        target[_plain(key)] = tensor
    return taps_in_a_row(merged(weights, second))


def _plain(key: str) -> str:
    name = key.replace(SECOND_NAME, PRIMARY, 1) if key.startswith(SECOND_NAME) else key
    return name.replace(".module.", ".").removesuffix(RAW)
