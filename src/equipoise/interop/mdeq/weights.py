"""MDEQ's published weights: the formats of a state dict, and the names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from equipoise.interop.published_weights import (
    WEIGHT_NORM_RULES,
    by_our_names,
    by_rules,
    primary_entries,
)

COPIES = ("fullstage_copy.", "full_stage_copy.", "deq.func_copy.", "loss.")
"""The code of 2020 saves frozen copies of f, one step old, and weights of the segmentation loss."""
SECOND_NAME = ("deq.func.", "fullstage.")
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
    *WEIGHT_NORM_RULES,
]


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every weight once, by its name in the code of 2021.

    Takes a state dict, or a checkpoint with the entry `state_dict`; drops the prefixes of wrappers
    (`module.`, `model.`), frozen copies and the loss's weights, and accepts `full_stage.` and the
    second names `deq.func.*` for `fullstage.*`. Warns of second names whose values differ. Raises
    DoesNotFit if an entry is not a tensor, or two entries claim one name.
    """
    return primary_entries(checkpoint, SECOND_NAME, copies=COPIES, renamed=_of_2021)


def published_name(name: str) -> str:
    """The published name of our parameter or buffer `name`."""
    name = re.sub(r"^stem\.layers\.(\d+)\.(conv|norm)", _stem_layer, name)
    return by_rules(name, RULES)


def in_our_names(state_dict: Mapping[str, Any], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that `ours` has; others keep their published name."""
    return by_our_names(primary(state_dict), ours, published_name)


def _of_2021(key: str) -> str:
    return key.replace("full_stage.", "fullstage.")


def _stem_layer(match: re.Match[str]) -> str:
    """The first two layers are numbered with their ReLUs; those of deeper stems have names."""
    index, is_norm = int(match[1]), match[2] == "norm"
    if index < 2:
        return f"downsample.{3 * index + is_norm}"
    return f"downsample.DS{index + 1}" + ("-BN" if is_norm else "")
