"""The published weights of the equilibrium trellis network: their forms and their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from equipoise.interop.published_trellis import ENDS, taps_in_a_row
from equipoise.interop.published_weights import WEIGHT_NORM_RULES, by_rules, primary_entries

COPIES = ("trellisnet.func_copy.", "trellisnet.deq.func_copy.")
"""Frozen copies of f, as it was in the forward before."""
SECOND_NAME = ("trellisnet.deq.func.", "trellisnet.func.")
RULES = [
    (r"cell\.inward\.", r"trellisnet.inject_conv."),
    (r"cell\.recurrent\.", r"trellisnet.func.full_conv."),
]


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return every weight once; both taps of a kernel stand in one row, that of t - 1 first."""
    return taps_in_a_row(primary_entries(checkpoint, SECOND_NAME, copies=COPIES))


def published_name(name: str, weight_norm: bool = True) -> str:
    """Return the published name of our parameter `name`, with or without weight norm.

    Without weight norm the directions are the weights.
    """
    published = by_rules(name, [*RULES, *WEIGHT_NORM_RULES])
    if not weight_norm and published.endswith(".weight_v"):
        published = published.removesuffix("_v")
    return ENDS.get(published, published)
