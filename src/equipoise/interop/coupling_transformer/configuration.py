"""The words of the published graph transformers, and what the weights imply if words do not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from torch import Tensor

from equipoise.interop.published_configuration import (
    DoesNotFit,
    PublishedConfiguration,
    setting_lines,
)
from equipoise.interop.published_weights import bare_entries

NAME = "graph transformer"
MAX_PAIRS = 250
"""How many pairs of a molecule the published training script reads."""
TWO_BLOCKS = "ABCDEFGILM"
"""The published models whose heads have two residual blocks; the others, and `src`, have one."""
WITH_QUADS = "L"
FORMS = {"sine": "sine", "learnable": "learned"}
FEATURES = {
    "atom_feature": ("atom", "atom_angle_embedding"),
    "pair_feature": ("bond", "dist_embedding"),
    "triplet_feature": ("triplet", "trip_angle_embedding"),
    "quad_feature": ("quad", "quad_angle_embedding"),
}
SIZES: dict[str, tuple[tuple[str, ...], int | None]] = {
    "width": (("dim", "d_model"), 650),
    "layers": (("n_layers", "n_layer"), None),
    "heads": (("n_head", "n_heads"), 10),
    "inner": (("d_inner",), None),
    "head_width": (("final_dim",), None),
    "feature_width": (("fdim",), 64),
}
RATES = {
    "dropout": (("dropout",), 0.03),
    "attention_dropout": (("dropatt", "attn_dropout"), 0.0),
    "head_dropout": (("final_dropout",), 0.04),
}
LABELS = {"atom": 3, "bond": 3, "triplet": 2, "quad": 1}
"""The levels of labels of each kind of node."""
UNREAD = ("seg_embedding",)
"""A parameter of one published model that nothing reads."""
LAYER = re.compile(r"layers\.(\d+)\.")
BLOCK = re.compile(r"final_res\.(\d+)\.proj\.")


def architecture(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of our CouplingTransformer.

    The weights determine what the words do not, and what neither determines has the published
    default. Raises DoesNotFit if there is none, or if a word has an invalid value.
    """
    words = Words(config, NAME)
    quads = words.letter == WITH_QUADS or words.flag("use_quad", _any(weights, "quad_embedding."))
    labels = {kind: words.labels(kind, weights) for kind in LABELS if kind != "quad" or quads}
    told = _sizes(weights, labels["bond"][1])
    return {
        "atom_types": labels["atom"],
        "pair_types": labels["bond"],
        "triplet_types": labels["triplet"],
        "quad_types": labels.get("quad", []),
        **{ours: words.whole(keys, told.get(ours, n)) for ours, (keys, n) in SIZES.items()},
        "residual_blocks": words.blocks(told.get("residual_blocks", 1)),
        "quads": quads,
        **{
            ours: words.form(word, learned=_any(weights, f"{kind}_embedding.proj."))
            for ours, (kind, word) in FEATURES.items()
            if kind in labels
        },
        "weight_norm": words.flag("wnorm", "layers.0.qkv_net.weight_g" in weights),
        "legacy_indices": True,
        **{ours: words.rate(keys, rate) for ours, (keys, rate) in RATES.items()},
    }


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Group choices and settings for task and model."""
    arguments = architecture(config, weights_of(state_dict))
    settings = {name: arguments.pop(name) for name in tuple(arguments) if name.endswith("_types")}
    settings["max_pairs"] = max_pairs(config)
    return [
        "task=champs",
        "model=coupling_transformer",
        *setting_lines("task", settings),
        *setting_lines("model", arguments),
    ]


def weights_of(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that are read, by their published names. Raises DoesNotFit as `bare_entries`."""
    entries = bare_entries(state_dict)
    return {name: tensor for name, tensor in entries.items() if not name.startswith(UNREAD)}


def max_pairs(config: Mapping[str, Any]) -> int:
    """How many pairs of a molecule are read. Raises DoesNotFit if that is not a valid number."""
    return Words(config, NAME).whole(("max_bond_count",), MAX_PAIRS)


def _any(weights: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in weights)


def _sizes(weights: Mapping[str, Tensor], types: int) -> dict[str, int]:
    """What the weights imply about the sizes."""
    layers = {int(found[1]) for found in map(LAYER.match, weights) if found}
    blocks = {int(found[1]) for found in map(BLOCK.match, weights) if found}
    told = {"layers": len(layers), "residual_blocks": len(blocks)}
    shapes = {"width": "final_norm.weight", "inner": "layers.0.proj1.bias"}
    learned = [name for name in weights if name.endswith("_embedding.proj.bias")]
    if learned:
        shapes["feature_width"] = learned[0]
    told |= {ours: len(weights[name]) for ours, name in shapes.items() if name in weights}
    if "final_lin1.bias" in weights:
        told["head_width"] = len(weights["final_lin1.bias"]) // types
    return {name: size for name, size in told.items() if size}


class Words(PublishedConfiguration):
    """The words of the published code, with the type of each."""

    example = "n_layers"

    @property
    def letter(self) -> str:
        """That of a published model, "" for the code that all of them come from."""
        found = re.search(r"model_([A-M])\b", str(self.get("source_dir", "")))
        return found[1] if found else ""

    def blocks(self, otherwise: int) -> int:
        """The residual blocks of a head; the folder of the code determines them, not a word."""
        if self.letter:
            return 2 if self.letter in TWO_BLOCKS else 1
        of_source = re.search(r"(^|/)src/?$", str(self.get("source_dir", "")))
        return 1 if of_source else otherwise

    def form(self, word: str, *, learned: bool) -> str:
        """How a feature is embedded; `learned`: the form if no word gives one."""
        value = self.get(word, "learnable" if learned else "sine")
        if not isinstance(value, str) or value not in FORMS:
            raise DoesNotFit(f"{word} is {value}; choose {', '.join(FORMS)}")
        return FORMS[value]

    def labels(self, kind: str, weights: Mapping[str, Tensor]) -> list[int]:
        """How many labels a kind of node has on each level, excluding 0."""
        word, levels = f"num_{kind}_types", LABELS[kind]
        if word not in self:
            names = [f"{kind}_embedding.embedding.embeds.{n}.weight" for n in range(levels)]
            if not all(name in weights for name in names):
                self.need(word)
            return [len(weights[name]) - 1 for name in names]
        value = self.get(word, [])
        counts = [value] if isinstance(value, Integral) else value
        numbers = isinstance(counts, Sequence) and all(isinstance(n, Integral) for n in counts)
        if not numbers or len(counts) != levels or min(counts) < 1:
            raise DoesNotFit(
                f"{word} is {value}; give a number of labels, at least 1, for each of {levels} "
                "levels"
            )
        return [int(count) for count in counts]
