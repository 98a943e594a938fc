"""The published graph transformers for couplings: their words, weights and recorded arrays.

Source: 2008.05994, the first-placed solution of the CHAMPS competition, and its code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from equipoise.equilibrium import GradientEstimator, Solver
from equipoise.interop.published_configuration import (
    DoesNotFit,
    PublishedConfiguration,
    setting_lines,
)
from equipoise.interop.published_weights import WEIGHT_NORM_RULES, bare_entries, by_rules, load
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    required,
    widest,
)
from equipoise.models import CouplingTransformer

NAME = "graph transformer"
MAX_PAIRS = 250
"""How many pairs of a molecule the published training script reads."""
TWO_BLOCKS = "ABCDEFGILM"
"""The published models whose heads have two residual blocks; the others, and `src`, have one."""
WITH_QUADS = "L"
UNREAD = ("seg_embedding",)
"""A parameter of one published model that nothing reads."""
FORMS = {"sine": "sine", "learnable": "learned"}
FEATURES = {
    "atom_feature": "atom_angle_embedding",
    "pair_feature": "dist_embedding",
    "triplet_feature": "trip_angle_embedding",
    "quad_feature": "quad_angle_embedding",
}
SIZES: dict[str, tuple[tuple[str, ...], int | None]] = {
    "width": (("dim", "d_model"), 650),
    "layers": (("n_layers", "n_layer"), None),
    "heads": (("n_head", "n_heads"), 10),
    "inner": (("d_inner",), None),
    "head_width": (("final_dim",), None),
}
RATES = {
    "dropout": (("dropout",), 0.03),
    "attention_dropout": (("dropatt", "attn_dropout"), 0.0),
    "head_dropout": (("final_dropout",), 0.04),
}
LABELS = {"atom": 3, "bond": 3, "triplet": 2, "quad": 1}
"""The levels of labels of each kind of node."""
LAYER = re.compile(r"layers\.(\d+)\.")
BLOCK = re.compile(r"final_res\.(\d+)\.proj\.")
HEAD = ("final_lin1.", "final_res.")
RULES = [
    (r"embeddings\.pair\.", "embeddings.bond."),
    (r"embeddings\.(\w+)\.levels\.", r"\1_embedding.embedding.embeds."),
    (r"embeddings\.(\w+)\.sines\.", r"\1_embedding.projs."),
    (r"embeddings\.(\w+)\.learned\.", r"\1_embedding.proj."),
    (r"(layers\.\d+)\.attention\.value_query_key\.", r"\1.qkv_net."),
    (r"(layers\.\d+)\.attention\.output\.", r"\1.o_net."),
    (r"(layers\.\d+)\.attention\.gamma$", r"\1.gamma"),
    (r"(layers\.\d+)\.norm\.", r"\1.norm1."),
    (r"(layers\.\d+)\.feed_forward_norm\.", r"\1.norm2."),
    (r"(layers\.\d+)\.widen\.", r"\1.proj1."),
    (r"(layers\.\d+)\.narrow\.", r"\1.proj2."),
    (r"last_norm\.", "final_norm."),
    (r"head\.enter\.", "final_lin1."),
    (r"head\.blocks\.(\d+)\.first\.", r"final_res.\1.proj.0."),
    (r"head\.blocks\.(\d+)\.second\.", r"final_res.\1.proj.3."),
    *WEIGHT_NORM_RULES,
]


class PublishedTransformer(CouplingTransformer):
    """A published network, which reads the first `max_pairs` pairs of a molecule."""

    max_pairs = MAX_PAIRS


def architecture(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of our CouplingTransformer.

    Missing words have the published defaults; the weights tell sizes where the words do not. Raises
    DoesNotFit where neither does, or a word has a value that it cannot have.
    """
    words = _Words(config, NAME)
    quads = words.letter == WITH_QUADS or words.flag("use_quad", False)
    labels = {kind: words.labels(kind, weights) for kind in LABELS if kind != "quad" or quads}
    told = _told(weights, labels["bond"][1])
    return {
        "atom_types": labels["atom"],
        "pair_types": labels["bond"],
        "triplet_types": labels["triplet"],
        "quad_types": labels.get("quad", []),
        **{ours: words.whole(keys, told.get(ours, n)) for ours, (keys, n) in SIZES.items()},
        "residual_blocks": words.blocks(told.get("residual_blocks", 1)),
        "quads": quads,
        **{o: words.form(theirs) for o, theirs in FEATURES.items() if quads or "quad" not in o},
        "feature_width": words.whole(("fdim",), 64),
        "weight_norm": words.flag("wnorm", False),
        "legacy_indices": True,
        **{ours: words.rate(keys, rate) for ours, (keys, rate) in RATES.items()},
    }


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Group choices and settings for task and model."""
    arguments = architecture(config, _bare(state_dict))
    settings = {name: arguments.pop(name) for name in tuple(arguments) if name.endswith("_types")}
    settings["max_pairs"] = _Words(config, NAME).whole(("max_bond_count",), MAX_PAIRS)
    return [
        "task=champs",
        "model=coupling_transformer",
        *setting_lines("task", settings),
        *setting_lines("model", arguments),
    ]


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> PublishedTransformer:
    """The network with its weights and its indices, in float64 if they are and float32 otherwise.

    config: the arguments of the published network, with `source_dir`, the folder of its code, and
    `max_bond_count`. Raises DoesNotFit, a ValueError, where configuration and weights do not fit
    each other, or a solver or gradient is given to a network that has none.
    """
    if solver is not None or gradient is not None:
        raise DoesNotFit(f"the published {NAME} has neither a solver nor an estimator")
    weights = _bare(state_dict)
    arguments = architecture(config, weights)
    try:
        model = PublishedTransformer(**arguments)
    except ValueError as error:
        raise DoesNotFit(f"no published {NAME} has this configuration: {error}") from error
    model.max_pairs = _Words(config, NAME).whole(("max_bond_count",), MAX_PAIRS)
    types, blocks = arguments["pair_types"][1], arguments["residual_blocks"]
    rules = [*RULES, (r"head\.leave\.", f"final_res.{blocks}.")]
    apart = {name: _by_type(name, tensor, types) for name, tensor in weights.items()}
    load(model, apart, lambda name: by_rules(name, rules))
    return model


@torch.no_grad()
def reference_forward(model: PublishedTransformer, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """y_pred (molecules, types, pairs): what every type's head makes of every pair.

    Takes x_atom, x_atom_pos, x_bond, x_bond_dist, x_triplet and x_triplet_angle, and x_quad and
    x_quad_angle where the model has quads, as the published code stores them. Raises DoesNotFit
    where one is missing or its shape does not fit.
    """
    inputs = as_tensors(arrays, model)
    dtype = widest({n: t for n, t in inputs.items() if n.startswith("x_")})
    batch = _batch(inputs, model)
    numbers = {n: t.to(dtype) if t.is_floating_point() else t for n, t in batch.items()}
    try:
        return as_arrays({"y_pred": evaluation_copy(model, dtype).of_all_types(numbers)})
    except (IndexError, RuntimeError, ValueError) as error:
        raise DoesNotFit(f"the arrays do not fit the model: {error}") from error


def _batch(inputs: Mapping[str, Tensor], model: PublishedTransformer) -> dict[str, Tensor]:
    """The published arrays as a batch; in x_triplet, column 5 is the second pair and 6 is empty."""
    atom = required(inputs, "x_atom", "labels of atoms (molecules, atoms, levels)")
    numbers = required(inputs, "x_atom_pos", "x, y, z, angle and charge of atoms")
    pair = required(inputs, "x_bond", "labels and atoms of pairs")[:, : model.max_pairs]
    distance = required(inputs, "x_bond_dist", "squared distances")[:, : model.max_pairs]
    triplet = required(inputs, "x_triplet", "labels, atoms and pairs of triplets")
    batch = {
        "atom": atom, "position": numbers[..., :3], "atom_feature": numbers[..., 3:5],
        "pair": pair[..., :3], "pair_atoms": pair[..., 3:5], "squared_distance": distance,
        "triplet": triplet[..., :2], "triplet_atoms": triplet[..., 2:5],
        "triplet_pairs": triplet[..., [6, 5]],
        "triplet_angle": required(inputs, "x_triplet_angle", "angles of triplets"),
    }  # fmt: skip
    if model.quads:
        quad = required(inputs, "x_quad", "labels, atoms, pairs and triplets of quads")
        batch |= {
            "quad": quad[..., :1], "quad_atoms": quad[..., 1:5], "quad_pairs": quad[..., 5:8],
            "quad_triplets": quad[..., 8:10],
            "quad_angle": required(inputs, "x_quad_angle", "angles of quads"),
        }  # fmt: skip
    return batch | {f"{kind}_present": batch[kind][..., 0] > 0 for kind in model.kinds}


def _bare(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    entries = bare_entries(state_dict)
    return {name: tensor for name, tensor in entries.items() if not name.startswith(UNREAD)}


def _by_type(name: str, tensor: Tensor, types: int) -> Tensor:
    """The weights of a grouped convolution with those of each type apart: (types, out, in)."""
    if not name.startswith(HEAD) or not tensor.dim() or len(tensor) % types:
        return tensor
    return tensor.unflatten(0, (types, -1))


def _told(weights: Mapping[str, Tensor], types: int) -> dict[str, int]:
    """What the weights tell of the sizes."""
    layers = {int(found[1]) for found in map(LAYER.match, weights) if found}
    blocks = {int(found[1]) for found in map(BLOCK.match, weights) if found}
    told = {"layers": len(layers), "residual_blocks": len(blocks)}
    shapes = {"width": "final_norm.weight", "inner": "layers.0.proj1.bias"}
    told |= {ours: len(weights[name]) for ours, name in shapes.items() if name in weights}
    if "final_lin1.bias" in weights:
        told["head_width"] = len(weights["final_lin1.bias"]) // types
    return {name: size for name, size in told.items() if size}


class _Words(PublishedConfiguration):
    """The words of the published code, each of a kind."""

    example = "n_layers"

    @property
    def letter(self) -> str:
        """That of a published model, "" for the code that all of them come from."""
        found = re.search(r"model_([A-M])\b", str(self.get("source_dir", "")))
        return found[1] if found else ""

    def blocks(self, otherwise: int) -> int:
        """The residual blocks of a head, which no word tells, but the folder of the code does."""
        if "source_dir" not in self:
            return otherwise
        return 2 if self.letter and self.letter in TWO_BLOCKS else 1

    def whole(self, words: Sequence[str], otherwise: int | None) -> int:
        """A number above 0: that of the first of several words for one thing."""
        given = self.first(words)
        value = otherwise if given is None else given
        if value is None:
            return int(self.need(words[0]))
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise DoesNotFit(f"{words[0]} is {value}; it must be a whole number, at least 1")
        return int(value)

    def rate(self, words: Sequence[str], otherwise: float) -> float:
        """A probability."""
        given = self.first(words)
        value = otherwise if given is None else given
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise DoesNotFit(f"{words[0]} is {value}; it must be a probability, from 0 to 1")
        return float(value)

    def flag(self, word: str, otherwise: bool) -> bool:
        """True or False."""
        value = self.get(word, otherwise)
        if not isinstance(value, bool):
            raise DoesNotFit(f"{word} is {value}; choose true or false")
        return value

    def form(self, word: str) -> str:
        """How a feature is embedded; the published training script says sine for all of them."""
        value = self.get(word, "sine")
        if value not in FORMS:
            raise DoesNotFit(f"{word} is {value}; choose {', '.join(FORMS)}")
        return FORMS[value]

    def labels(self, kind: str, weights: Mapping[str, Tensor]) -> list[int]:
        """How many labels a kind of node has on each level, beside 0."""
        word = f"num_{kind}_types"
        if word in self:
            counts = self.get(word, [])
            if isinstance(counts, int):
                counts = [counts]
            return [int(count) for count in counts]
        names = [f"{kind}_embedding.embedding.embeds.{n}.weight" for n in range(LABELS[kind])]
        if not all(name in weights for name in names):
            self.need(word)
        return [len(weights[name]) - 1 for name in names]
