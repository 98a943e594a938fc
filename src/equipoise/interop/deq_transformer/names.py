"""The published names of the equilibrium transformer's parameters."""

from __future__ import annotations

import re

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
    (r"(.*)\.weight\.length$", r"\1.weight_g"),
    (r"(.*)\.weight\.direction$", r"\1.weight_v"),
]


def published_name(name: str) -> str:
    """Return the name in the code of 2021 of our parameter or buffer `name`."""
    for pattern, replacement in RULES:
        name = re.sub(f"^{pattern}", replacement, name)
    return name
