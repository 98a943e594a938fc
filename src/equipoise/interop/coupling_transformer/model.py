"""The published graph transformers for couplings: their weights and recorded arrays.

Source: 2008.05994, the first-placed solution of the CHAMPS competition, and its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from equipoise.equilibrium import GradientEstimator, Solver
from equipoise.interop.coupling_transformer.configuration import (
    BLOCK,
    MAX_PAIRS,
    NAME,
    architecture,
    max_pairs,
    weights_of,
)
from equipoise.interop.published_configuration import DoesNotFit
from equipoise.interop.published_weights import (
    WEIGHT_NORM_RULES,
    by_our_names,
    by_rules,
    load,
)
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    required,
    widest,
)
from equipoise.models import CouplingTransformer

ARRAYS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "x_atom": ("labels of atoms", "x_atom", (3,)),
    "x_atom_pos": ("x, y, z, angle and charge of atoms", "x_atom", (5,)),
    "x_bond": ("labels and atoms of pairs", "x_bond", (5,)),
    "x_bond_dist": ("squared distances of pairs", "x_bond", ()),
    "x_triplet": ("labels, atoms and pairs of triplets", "x_triplet", (7,)),
    "x_triplet_angle": ("angles of triplets", "x_triplet", ()),
    "x_quad": ("labels, atoms, pairs and triplets of quads", "x_quad", (10,)),
    "x_quad_angle": ("angles of quads", "x_quad", ()),
}
"""For each array its description, the array with its nodes' labels, and its columns."""
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


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> PublishedTransformer:
    """The network with its weights and its indices, in float64 if they are and float32 otherwise.

    config: the arguments of the published network, with `source_dir`, the folder of its code, and
    `max_bond_count`. Raises DoesNotFit, a ValueError, if configuration and weights do not fit each
    other, or if a solver or gradient is given, since this network has none.
    """
    if solver is not None or gradient is not None:
        raise DoesNotFit(f"the published {NAME} has neither a solver nor an estimator")
    weights = weights_of(state_dict)
    arguments = architecture(config, weights)
    try:
        model = PublishedTransformer(**arguments)
    except ValueError as error:
        raise DoesNotFit(f"no published {NAME} has this configuration: {error}") from error
    model.max_pairs = max_pairs(config)
    types = arguments["pair_types"][1]
    apart = {name: _by_type(name, tensor, types) for name, tensor in weights.items()}
    load(model, apart, lambda name: published_name(model, name))
    return model


def in_our_names(state_dict: Mapping[str, Any], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that `ours` has; others keep their published name.

    A head fits if ours has as many types.
    """
    weights, entrance = weights_of(state_dict), ours.get("head.enter.weight")
    if entrance is not None:
        types = len(entrance)
        weights = {name: _by_type(name, tensor, types) for name, tensor in weights.items()}
    blocks = len({found[1] for found in map(BLOCK.match, weights) if found})
    return by_our_names(weights, ours, lambda name: _published_name(blocks, name))


def published_name(model: CouplingTransformer, name: str) -> str:
    """The published name of one of our parameters."""
    return _published_name(len(model.head.blocks), name)


def _published_name(blocks: int, name: str) -> str:
    return by_rules(name, [*RULES, (r"head\.leave\.", f"final_res.{blocks}.")])


@torch.no_grad()
def reference_forward(model: PublishedTransformer, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """y_pred (molecules, types, pairs): the output of every type's head for every pair.

    Takes x_atom, x_atom_pos, x_bond, x_bond_dist, x_triplet and x_triplet_angle, and x_quad and
    x_quad_angle if the model has quads, as the published code stores them. Raises DoesNotFit if one
    is missing or its shape does not fit.
    """
    inputs = as_tensors({name: arrays[name] for name in ARRAYS if name in arrays}, model)
    dtype = widest(inputs)
    batch = batch_of_arrays(inputs, model)
    numbers = {n: t.to(dtype) if t.is_floating_point() else t for n, t in batch.items()}
    try:
        return as_arrays({"y_pred": evaluation_copy(model, dtype).of_all_types(numbers)})
    except (IndexError, RuntimeError, ValueError) as error:
        raise DoesNotFit(f"the arrays do not fit the model: {error}") from error


def batch_of_arrays(inputs: Mapping[str, Tensor], model: PublishedTransformer) -> dict[str, Tensor]:
    """The published arrays as a batch; in x_triplet, column 5 is the second pair and 6 is empty.

    Raises DoesNotFit as `reference_forward` does.
    """
    atom, numbers = _array(inputs, "x_atom"), _array(inputs, "x_atom_pos")
    pair, distance = (
        _array(inputs, name)[:, : model.max_pairs] for name in ("x_bond", "x_bond_dist")
    )
    triplet = _array(inputs, "x_triplet")
    batch = {
        "atom": atom, "position": numbers[..., :3], "atom_feature": numbers[..., 3:],
        "pair": pair[..., :3], "pair_atoms": pair[..., 3:], "squared_distance": distance,
        "triplet": triplet[..., :2], "triplet_atoms": triplet[..., 2:5],
        "triplet_pairs": triplet[..., [6, 5]], "triplet_angle": _array(inputs, "x_triplet_angle"),
    }  # fmt: skip
    if model.quads:
        quad = _array(inputs, "x_quad")
        batch |= {
            "quad": quad[..., :1], "quad_atoms": quad[..., 1:5], "quad_pairs": quad[..., 5:8],
            "quad_triplets": quad[..., 8:], "quad_angle": _array(inputs, "x_quad_angle"),
        }  # fmt: skip
    return batch | {f"{kind}_present": batch[kind][..., 0] > 0 for kind in model.kinds}


def _array(inputs: Mapping[str, Tensor], name: str) -> Tensor:
    """An array, with rows for the same nodes as the array of their labels."""
    what, of, columns = ARRAYS[name]
    array, nodes = required(inputs, name, what), required(inputs, of, ARRAYS[of][0])
    shape = (*nodes.shape[:2], *columns)
    if nodes.dim() != 3 or array.shape != shape or len(array) != len(inputs["x_atom"]):
        raise DoesNotFit(
            f"{name} must be (molecules, nodes{''.join(f', {n}' for n in columns)}), as many "
            f"molecules as x_atom has and as many nodes as {of}, got {tuple(array.shape)}"
        )
    return array


def _by_type(name: str, tensor: Tensor, types: int) -> Tensor:
    """The weights of a grouped convolution, separated by type: (types, out, in)."""
    if not name.startswith(HEAD) or not tensor.dim() or len(tensor) % types:
        return tensor
    return tensor.unflatten(0, (types, -1))
