"""One state dict out of the published file of the equilibrium trellis network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from equipoise.interop.published_weights import bare_entries, merged
from equipoise.interop.trellis_weights import taps_in_a_row

COPIES = ("trellisnet.func_copy.", "trellisnet.deq.func_copy.")
"""Frozen copies of f, as it was in the forward before."""
SECOND_NAME = "trellisnet.deq.func."
PRIMARY = "trellisnet.func."


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return every weight once; both taps of a kernel stand in one row, that of t - 1 first."""
    weights: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    for name, tensor in bare_entries(checkpoint).items():
        if name.startswith(SECOND_NAME):
            second[name.replace(SECOND_NAME, PRIMARY, 1)] = tensor
        elif not name.startswith(COPIES):
            weights[name] = tensor
    return taps_in_a_row(merged(weights, second))
