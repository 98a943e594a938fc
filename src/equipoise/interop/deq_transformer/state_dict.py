"""One state dict out of the forms in which the equilibrium transformer has been published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from equipoise.interop.published_weights import bare_entries, merged

COPIES = ("func_copy.", "deq.func_copy.")
"""The code of 2020 saves frozen copies of f: the effective weights of the forward before."""
SECOND_NAME = "deq.func."
BARE_PROJECTION = re.compile(r"^(word_emb\.emb_projs|crit\.out_projs)\.(\d+)$")


def is_of_2020(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the weights were saved by the code of 2020, which alone has copies of f."""
    return any(key.startswith(COPIES) for key in bare_entries(checkpoint))


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return every weight once, by its name in the code of 2021.

    The code of 2020 names projections without `.weight`, has the feed-forward as convolutions of
    width 1, frozen copies of f, and `deq.func.*` as second names of `func.*`.
    """
    weights: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    for key, tensor in bare_entries(checkpoint).items():
        if key.startswith(COPIES):
            continue
        name = BARE_PROJECTION.sub(r"\1.\2.weight", key)
        if name.startswith(SECOND_NAME):
            second[name.removeprefix("deq.")] = tensor
        else:
            weights[name] = tensor
    return merged(weights, second)
