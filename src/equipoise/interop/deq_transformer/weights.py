"""The published weights of the equilibrium transformer: their formats and names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from equipoise.interop.published_weights import (
    WEIGHT_NORM_RULES,
    bare_entries,
    by_our_names,
    by_rules,
    primary_entries,
)

COPIES = ("func_copy.", "deq.func_copy.")
"""The code of 2020 saves frozen copies of f: the effective weights of the previous forward."""
SECOND_NAME = ("deq.func.", "func.")
BARE_PROJECTION = re.compile(r"^(word_emb\.emb_projs|crit\.out_projs)\.(\d+)$")
RULES = [
    (r"embedding\.tables\.(\d+)", r"word_emb.emb_layers.\1.weight"),
    (r"embedding\.projections\.(\d+)", r"word_emb.emb_projs.\1.weight"),
    (r"injection\.", r"inject_conv."),
    (r"positions\.frequencies", r"pos_emb.inv_freq"),
    (r"cell\.attention\.content_bias", r"func.dec_attn.r_w_bias"),
    (r"cell\.attention\.position_bias", r"func.dec_attn.r_r_bias"),
    (r"cell\.attention\.query_key_value\.", r"func.dec_attn.qkv_net."),
    (r"cell\.attention\.position\.", r"func.dec_attn.r_net."),
    (r"cell\.attention\.output\.", r"func.dec_attn.o_net."),
    (r"cell\.widen\.", r"func.pos_ff.ff1_net."),
    (r"cell\.narrow\.", r"func.pos_ff.ff2_net."),
    (r"softmax\.cluster_(weight|bias)", r"crit.cluster_\1"),
    (r"softmax\.tables\.(\d+)", r"crit.out_layers.\1.weight"),
    (r"softmax\.biases\.(\d+)", r"crit.out_layers.\1.bias"),
    (r"softmax\.projections\.(\d+)", r"crit.out_projs.\1.weight"),
    *WEIGHT_NORM_RULES,
]


def is_of_2020(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the weights were saved by the code of 2020, the only one with copies of f."""
    return any(key.startswith(COPIES) for key in bare_entries(checkpoint))


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every weight once, by its name in the code of 2021.

    The code of 2020 names projections without `.weight`, stores the feed-forward as convolutions of
    width 1, and has frozen copies of f, and `deq.func.*` as second names of `func.*`.
    """
    return primary_entries(checkpoint, SECOND_NAME, copies=COPIES, renamed=_whole)


def published_name(name: str) -> str:
    """The name in the code of 2021 of our parameter or buffer `name`."""
    return by_rules(name, RULES)


def in_our_names(state_dict: Mapping[str, Any], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that `ours` has; others keep their published name."""
    return by_our_names(primary(state_dict), ours, published_name)


def _whole(key: str) -> str:
    return BARE_PROJECTION.sub(r"\1.\2.weight", key)
