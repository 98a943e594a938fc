"""The published names of MDEQ's parameters and buffers."""

from __future__ import annotations

import re

RULES = [
    (r"stem\.projection\.conv", r"stage0.0"),
    (r"stem\.projection\.norm", r"stage0.1"),
    (r"cell\.branches\.(\d+)\.blocks\.(\d+)\.conv", r"fullstage.branches.\1.blocks.\2.conv"),
    (r"cell\.branches\.(\d+)\.blocks\.(\d+)\.norm", r"fullstage.branches.\1.blocks.\2.gn"),
    (r"cell\.fusion\.paths\.(\d+)\.(\d+)\.(\d+\.)?conv", r"fullstage.fuse_layers.\1.\2.net.\3conv"),
    (
        r"cell\.fusion\.paths\.(\d+)\.(\d+)\.(\d+\.)?norm",
        r"fullstage.fuse_layers.\1.\2.net.\3gnorm",
    ),
    (r"cell\.post_fusion\.(\d+)\.conv", r"fullstage.post_fuse_layers.\1.conv"),
    (r"cell\.post_fusion\.(\d+)\.norm", r"fullstage.post_fuse_layers.\1.gnorm"),
    (r"heads\.logits\.widen\.(\d+)\.conv", r"incre_modules.\1.0.conv"),
    (r"heads\.logits\.widen\.(\d+)\.norm", r"incre_modules.\1.0.bn"),
    (r"heads\.logits\.widen\.(\d+)\.shortcut", r"incre_modules.\1.0.downsample"),
    (r"heads\.logits\.down\.(\d+)\.conv", r"downsamp_modules.\1.0"),
    (r"heads\.logits\.down\.(\d+)\.norm", r"downsamp_modules.\1.1"),
    (r"heads\.logits\.final\.conv", r"final_layer.0"),
    (r"heads\.logits\.final\.norm", r"final_layer.1"),
    (r"heads\.logits\.classifier", r"classifier"),
    (r"heads\.mask_logits\.mix\.conv", r"last_layer.0"),
    (r"heads\.mask_logits\.mix\.norm", r"last_layer.1"),
    (r"heads\.mask_logits\.classifier", r"last_layer.3"),
    (r"(.*)\.weight\.length$", r"\1.weight_g"),
    (r"(.*)\.weight\.direction$", r"\1.weight_v"),
]


def published_name(name: str) -> str:
    """Return the published name of our parameter or buffer `name`."""
    name = re.sub(r"^stem\.layers\.(\d+)\.(conv|norm)", _stem_layer, name)
    for pattern, replacement in RULES:
        name = re.sub(f"^{pattern}", replacement, name)
    return name


def _stem_layer(match: re.Match[str]) -> str:
    """Two layers are numbered with their ReLUs; the further ones, of deeper stems, have names."""
    index, is_norm = int(match[1]), match[2] == "norm"
    if index < 2:
        return f"downsample.{3 * index + is_norm}"
    return f"downsample.DS{index + 1}" + ("-BN" if is_norm else "")
