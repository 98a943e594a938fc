"""Published words and weights of graph transformers, and what is said where they do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equipoise import interop
from equipoise.equilibrium import Broyden, JacobianFree
from equipoise.interop import DoesNotFit, coupling_transformer
from equipoise.models.coupling_transformer.head import ResidualBlock
from equipoise.models.coupling_transformer.layer import GraphLayer
from tests.interop.published_graph_transformer import WORDS, drawn, molecules

COUNTS = [{"atom": 4, "bond": 9, "triplet": 3, "quad": 2}] * 2
SIZES = {"atom": 5, "bond": 9, "triplet": 4, "quad": 3}
ARRAYS = molecules(WORDS, COUNTS, SIZES)
WEIGHTS = drawn(WORDS)
LEARNED = {
    "dist_embedding": "learnable",
    "trip_angle_embedding": "learnable",
    "quad_angle_embedding": "learnable",
}


def outputs(words: dict[str, Any], weights: dict[str, Tensor]) -> np.ndarray:
    model = interop.from_reference("coupling_transformer", words, weights)
    return interop.reference_forward("coupling_transformer", model, ARRAYS)["y_pred"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"source_dir": "models/model_A"},
        {"source_dir": "models/model_L"},
        {"use_quad": True, "wnorm": True},
        {"use_quad": True, "dist_embedding": "learnable", "fdim": 5},
        LEARNED,
        {**LEARNED, "use_quad": True},
    ],
)
def test_the_weights_tell_what_the_words_do_not(changes: dict[str, Any]) -> None:
    words = {**WORDS, **changes}
    weights = drawn(words)
    np.testing.assert_array_equal(
        outputs({"n_head": words["n_head"]}, weights), outputs(words, weights)
    )


def test_the_words_of_the_training_script_are_those_of_the_network() -> None:
    script = {
        "d_model": 12, "n_layer": 2, "n_heads": 2, "d_inner": 10, "final_dim": 3, "batch_size": 48,
        "dropout": 0.03, "final_dropout": 0.04, "attn_dropout": 0.0, "lr": 1e-3, "max_step": 10,
    }  # fmt: skip
    np.testing.assert_array_equal(outputs(script, WEIGHTS), outputs(WORDS, WEIGHTS))


def test_a_folder_of_another_name_says_nothing_of_the_blocks() -> None:
    words = {**WORDS, "source_dir": "models/model_B"}
    renamed = {**words, "source_dir": "my_copy"}
    np.testing.assert_array_equal(outputs(renamed, drawn(words)), outputs(words, drawn(words)))


def test_missing_words_have_the_published_defaults() -> None:
    words = {**WORDS, "dim": 650, "n_head": 10, "n_layers": 1}
    weights = drawn(words, dtype=torch.float32)
    model = interop.from_reference("coupling_transformer", {}, weights)
    layer = model.layers[0]
    assert isinstance(layer, GraphLayer)
    assert layer.norm.weight.dtype == torch.float32
    assert layer.attention.heads == 10
    assert layer.dropout.p == 0.03
    assert layer.attention.dropout == 0
    block = model.head.blocks[0]
    assert isinstance(block, ResidualBlock)
    assert block.dropout.p == 0.04
    assert model.legacy_indices
    assert model.max_pairs == 250


def test_dropouts_are_found_by_their_words() -> None:
    rates = {"dropout": 0.11, "dropatt": 0.12, "final_dropout": 0.13}
    model = interop.from_reference("coupling_transformer", {**WORDS, **rates}, WEIGHTS)
    for layer in model.layers:
        assert isinstance(layer, GraphLayer)
        assert layer.dropout.p == 0.11
        assert layer.attention.dropout == 0.12
    assert [block.dropout.p for block in model.head.blocks] == [0.13]


def test_weights_of_a_wrapped_network_or_a_checkpoint_load() -> None:
    wrapped = {f"module.{name}": weight for name, weight in WEIGHTS.items()}
    for held in (wrapped, {"state_dict": wrapped, "epoch": 3}):
        np.testing.assert_array_equal(outputs(WORDS, held), outputs(WORDS, WEIGHTS))


def test_new_names_of_a_weight_norm_are_those_of_the_old() -> None:
    words = {**WORDS, "wnorm": True}
    weights = drawn(words)
    new = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): weight
        for name, weight in weights.items()
    }
    np.testing.assert_array_equal(outputs(words, new), outputs(words, weights))


def test_every_difference_is_named_at_once() -> None:
    weights = drawn(WORDS) | {
        "surplus": torch.zeros(2),
        "layers.1.proj1.bias": torch.zeros(11),
        "final_res.0.proj.0.weight": torch.zeros(18, 4, 1),
    }
    del weights["final_norm.bias"], weights["layers.0.gamma"]
    with pytest.raises(DoesNotFit) as refusal:
        interop.from_reference("coupling_transformer", WORDS, weights)
    for words in (
        "missing: final_norm.bias, layers.0.gamma;",
        "unknown: surplus;",
        "final_res.0.proj.0.weight of shape [6, 3, 4] instead of [6, 3, 3]",
        "layers.1.proj1.bias of shape [11] instead of [10]",
    ):
        assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ({"dim": 24}, r"embeds.0.weight of shape \[4, 12\] instead of \[4, 24\]"),
        ({"n_layers": 3}, "missing: layers.2"),
        ({"n_layers": 1}, "unknown: layers.1"),
        ({"source_dir": "models/model_C"}, "missing: final_res.1.proj.0.bias"),
        ({"use_quad": True}, "missing: quad_embedding.embedding.embeds.0.weight"),
        ({"wnorm": True}, "missing: layers.0.o_net.weight_g"),
        ({"dist_embedding": "learnable"}, "missing: bond_embedding.proj.bias"),
        (
            {"num_bond_types": [4, 6, 9]},
            r"embeds.2.weight of shape \[8, 12\] instead of \[10, 12\]",
        ),
    ],
)
def test_weights_of_another_network_are_refused_by_name(words: dict[str, Any], names: str) -> None:
    with pytest.raises(DoesNotFit, match=names):
        interop.from_reference("coupling_transformer", {**WORDS, **words}, WEIGHTS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"n_head": 5}, "no published graph transformer has this configuration: 5 heads do not"),
        ({"n_head": 2.5}, "n_head is 2.5; it must be a whole number, at least 1"),
        ({"n_layers": 0}, "n_layers is 0; it must be a whole number, at least 1"),
        ({"dim": True}, "dim is True; it must be a whole number"),
        ({"max_bond_count": "all"}, "max_bond_count is all; it must be a whole number"),
        ({"dropout": 1.5}, "dropout is 1.5; it must be a probability"),
        ({"final_dropout": "low"}, "final_dropout is low; it must be a probability"),
        ({"wnorm": "yes"}, "wnorm is yes; choose true or false"),
        ({"trip_angle_embedding": "fourier"}, "trip_angle_embedding is fourier; choose sine"),
        ({"dist_embedding": ["sine"]}, r"dist_embedding is \['sine'\]; choose sine"),
        ({"num_bond_types": [24]}, r"num_bond_types is \[24\]; give a number of labels"),
        ({"num_atom_types": ["C"]}, r"num_atom_types is \['C'\]; give a number of labels"),
        ({"num_atom_types": "many"}, "num_atom_types is many; give a number of labels"),
    ],
)
def test_words_that_cannot_be_are_named(words: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DoesNotFit, match=sentence):
        interop.from_reference("coupling_transformer", {**WORDS, **words}, WEIGHTS)


def test_what_neither_words_nor_weights_tell_is_asked_for() -> None:
    for word, prefix in (
        ("num_bond_types", "bond_embedding"), ("n_layers", "layers"), ("final_dim", "final_lin1"),
    ):  # fmt: skip
        weights = {n: w for n, w in WEIGHTS.items() if not n.startswith(prefix)}
        with pytest.raises(DoesNotFit, match=f"a published graph transformer needs {word}"):
            interop.from_reference("coupling_transformer", {"n_head": 2, "d_inner": 3}, weights)


@pytest.mark.parametrize("part", [{"solver": Broyden()}, {"gradient": JacobianFree()}])
def test_it_has_neither_a_solver_nor_an_estimator(part: dict[str, Any]) -> None:
    with pytest.raises(DoesNotFit, match="neither a solver nor an estimator"):
        interop.from_reference("coupling_transformer", WORDS, WEIGHTS, **part)


def test_the_arrays_give_the_dtype_and_unknown_ones_are_ignored() -> None:
    model = interop.from_reference("coupling_transformer", WORDS, WEIGHTS).train()
    whole = interop.reference_forward("coupling_transformer", model, ARRAYS)["y_pred"]
    narrow = {
        name: array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
        for name, array in ARRAYS.items()
    }
    ignored = {"y": np.zeros((2, 9, 4)), "x_index": np.arange(2), "note": np.array(["text"])}
    found = interop.reference_forward("coupling_transformer", model, {**narrow, **ignored})
    assert set(found) == {"y_pred"}
    assert found["y_pred"].dtype == np.float32
    np.testing.assert_allclose(found["y_pred"], whole, rtol=0, atol=1e-4)
    assert model.training
    assert next(model.parameters()).dtype == torch.float64


def changed(name: str, column: int, value: int) -> dict[str, np.ndarray]:
    array = ARRAYS[name].copy()
    array[0, 0, column] = value
    return {name: array}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x_atom": None}, "the arrays need 'x_atom', labels of atoms"),
        ({"x_triplet_angle": None}, "the arrays need 'x_triplet_angle', angles of triplets"),
        ({"x_atom": ARRAYS["x_atom"][..., :2]}, r"x_atom must be \(molecules, nodes, 3\)"),
        ({"x_bond": ARRAYS["x_bond"][:1]}, "x_bond must be .* as many molecules as x_atom"),
        ({"x_bond": ARRAYS["x_bond"][..., :4]}, r"x_bond must be .* 5\), .* got \(2, 9, 4\)"),
        ({"x_bond": ARRAYS["x_bond"][0, 0]}, r"x_bond must be .* got \(5,\)"),
        ({"x_triplet": ARRAYS["x_triplet"][..., :5]}, r"x_triplet must be .* 7\)"),
        ({"x_bond_dist": ARRAYS["x_bond_dist"][:, :1]}, r"as many nodes as x_bond, got \(2, 1\)"),
        (changed("x_atom", 0, 4), "the arrays do not fit the model: index out of range"),
        (changed("x_bond", 4, 5), "the arrays do not fit the model: index 5 is out of bounds"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change: dict[str, Any], sentence: str) -> None:
    model = interop.from_reference("coupling_transformer", WORDS, WEIGHTS)
    arrays = {name: array for name, array in {**ARRAYS, **change}.items() if array is not None}
    with pytest.raises(DoesNotFit, match=sentence):
        interop.reference_forward("coupling_transformer", model, arrays)


def test_torsions_are_asked_for_where_the_model_has_them() -> None:
    words = {**WORDS, "use_quad": True}
    model = interop.from_reference("coupling_transformer", words, drawn(words))
    for name, what in (("x_quad", "labels, atoms, pairs"), ("x_quad_angle", "angles of quads")):
        arrays = {n: array for n, array in ARRAYS.items() if n != name}
        with pytest.raises(DoesNotFit, match=f"the arrays need '{name}', {what}"):
            interop.reference_forward("coupling_transformer", model, arrays)


def test_the_overrides_are_what_one_would_type() -> None:
    words = {**WORDS, "max_bond_count": 406, "dist_embedding": "learnable", "wnorm": True}
    assert coupling_transformer.overrides(words, drawn(words)) == [
        "task=champs",
        "model=coupling_transformer",
        "task.atom_types=[3,4,5]",
        "task.pair_types=[4,6,7]",
        "task.triplet_types=[4,8]",
        "task.quad_types=[]",
        "task.max_pairs=406",
        "model.width=12",
        "model.layers=2",
        "model.heads=2",
        "model.inner=10",
        "model.head_width=3",
        "model.feature_width=4",
        "model.residual_blocks=1",
        "model.quads=false",
        "model.atom_feature=sine",
        "model.pair_feature=learned",
        "model.triplet_feature=sine",
        "model.weight_norm=true",
        "model.legacy_indices=true",
        "model.dropout=0.03",
        "model.attention_dropout=0.0",
        "model.head_dropout=0.04",
    ]
