"""Published words and weights of MulT, and what is said where they do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equipoise import interop
from equipoise.equilibrium import Broyden, JacobianFree
from equipoise.interop import DoesNotFit, mult
from tests.interop import published_mult
from tests.interop.published_mult import WORDS, drawn, streams

SMALL = {**WORDS, "d_model": 10, "num_heads": 2, "layers": 1}
SHAPE = ((3, 5, 4), ([0, 2], [1, 0], [0, 0]))
WEIGHTS = drawn(SMALL)
ONE_TARGET = {**SMALL, "aonly": False, "vonly": False}
UNTOLD = ("orig_d_l", "orig_d_a", "orig_d_v", "output_dim", "layers", "lonly", "aonly", "vonly")


def outputs(words: dict[str, Any], weights: dict[str, Tensor]) -> np.ndarray:
    model = interop.from_reference("mult", words, weights)
    return interop.reference_forward("mult", model, streams(SMALL, *SHAPE))["out"]


@pytest.mark.parametrize("words", [SMALL, ONE_TARGET])
def test_the_weights_tell_what_the_words_do_not(words: dict[str, Any]) -> None:
    weights = drawn(words)
    rest = {word: value for word, value in words.items() if word not in UNTOLD}
    np.testing.assert_array_equal(outputs(rest, weights), outputs(words, weights))


def test_the_words_of_the_script_are_those_of_the_network() -> None:
    script = {
        "dataset": "mosei_senti", "batch_size": 24, "lr": 1e-3, "aligned": False, "nlevels": 1,
        "heads": 2, "d_model": 10, "lonly": False, "aonly": False, "vonly": False,
    }  # fmt: skip
    np.testing.assert_array_equal(outputs(script, WEIGHTS), outputs(SMALL, WEIGHTS))


def test_missing_words_have_the_published_defaults() -> None:
    weights = drawn(WORDS, dtype=torch.float32)
    model = interop.from_reference("mult", {}, weights)
    assert model.state_dict()["widen.weight"].dtype == torch.float32
    told = mult.architecture(WORDS, mult.primary(weights))
    assert mult.architecture({}, mult.primary(weights)) == told


def test_dropouts_are_found_by_their_words() -> None:
    rates = {
        "attn_dropout": 0.11, "attn_dropout_a": 0.12, "attn_dropout_v": 0.13, "relu_dropout": 0.14,
        "res_dropout": 0.15, "out_dropout": 0.16, "embed_dropout": 0.17,
    }  # fmt: skip
    model = interop.from_reference("mult", {**SMALL, **rates}, WEIGHTS)
    assert model.output_dropout.p == 0.16
    assert model.streams.dropout.p == 0.17
    of_source = {"language": 0.11, "audio": 0.12, "vision": 0.13}
    encoders = dict(model.crossmodal.encoders)
    assert len(encoders) == 6
    for name, encoder in (*encoders.items(), *model.memory.items()):
        layer = encoder.layers[0]
        source = name.split("_from_")[1] if name in encoders else "language"
        assert layer.attention.dropout == of_source[source]
        assert encoder.dropout.p == 0.17
        assert layer.inner_dropout.p == 0.14
        assert layer.residual_dropout.p == 0.15


def test_weights_of_a_wrapped_network_or_a_checkpoint_load() -> None:
    wrapped = {f"module.{name}": weight for name, weight in WEIGHTS.items()}
    for held in (wrapped, {"state_dict": wrapped, "epoch": 3}):
        np.testing.assert_array_equal(outputs(SMALL, held), outputs(SMALL, WEIGHTS))


def test_every_difference_is_named_at_once() -> None:
    weights = drawn(ONE_TARGET)
    weights |= {
        "surplus": torch.zeros(2),
        "trans_l_with_a.layers.0.self_attn.in_proj_weight": torch.zeros(24, 10),
        "trans_v_mem.layers.1.fc2.bias": torch.zeros(7),
    }
    del weights["proj2.bias"], weights["trans_a_mem.layer_norm.bias"]
    with pytest.raises(DoesNotFit) as refusal:
        interop.from_reference("mult", ONE_TARGET, weights)
    for words in (
        "missing: proj2.bias, trans_a_mem.layer_norm.bias;",
        "unknown: surplus;",
        "trans_l_with_a.layers.0.self_attn.in_proj_weight[key] of shape [8, 10] instead of",
        "trans_v_mem.layers.1.fc2.bias of shape [7] instead of [20]",
    ):
        assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ({"d_model": 20}, r"proj_l.weight of shape \[10, 20\] instead of \[20, 20\]"),
        ({"d_model": None}, r"proj_a.weight of shape \[10, 5\] instead of \[30, 5\]"),
        ({"layers": 2}, "missing: trans_a_with_l.layers.1.fc1.bias"),
        ({"orig_d_a": 6}, r"proj_a.weight of shape \[10, 5\] instead of \[10, 6\]"),
        ({"output_dim": 8}, r"out_layer.bias of shape \[1\] instead of \[8\]"),
        ({"aonly": False, "vonly": False}, "unknown: trans_a_with_l.layer_norm.bias"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(words: dict[str, Any], names: str) -> None:
    with pytest.raises(DoesNotFit, match=names):
        interop.from_reference("mult", {**SMALL, **words}, WEIGHTS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"vonly": False}, "the targets are language and audio; a published MulT has one or all"),
        ({"num_heads": 3}, "no published MulT has this configuration: 3 heads do not divide"),
        ({"num_heads": 2.5}, "num_heads is 2.5; it must be a whole number, at least 1"),
        ({"layers": 0}, "layers is 0; it must be a whole number, at least 1"),
        ({"res_dropout": 1.5}, "res_dropout is 1.5; it must be a probability"),
        ({"attn_dropout_v": "low"}, "attn_dropout_v is low; it must be a probability"),
        ({"attn_mask": "yes"}, "attn_mask is yes; choose true or false"),
    ],
)
def test_words_that_cannot_be_are_named(words: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DoesNotFit, match=sentence):
        interop.from_reference("mult", {**SMALL, **words}, WEIGHTS)


def test_what_neither_words_nor_weights_tell_is_asked_for() -> None:
    rest = {word: value for word, value in SMALL.items() if word not in UNTOLD}
    for word, prefix in (("orig_d_v", "proj_v"), ("output_dim", "out_layer"), ("layers", "trans")):
        weights = {n: w for n, w in WEIGHTS.items() if not n.startswith(prefix)}
        with pytest.raises(DoesNotFit, match=f"a published MulT needs {word}"):
            interop.from_reference("mult", rest, weights)


@pytest.mark.parametrize("part", [{"solver": Broyden()}, {"gradient": JacobianFree()}])
def test_it_has_neither_a_solver_nor_an_estimator(part: dict[str, Any]) -> None:
    with pytest.raises(DoesNotFit, match="neither a solver nor an estimator"):
        interop.from_reference("mult", SMALL, WEIGHTS, **part)


def test_the_arrays_give_the_dtype_and_unknown_ones_are_ignored() -> None:
    model = interop.from_reference("mult", SMALL, WEIGHTS).train()
    arrays = streams(SMALL, *SHAPE)
    whole = interop.reference_forward("mult", model, arrays)
    narrow = {name: array.astype(np.float32) for name, array in arrays.items()}
    ignored = {"y": np.zeros(2), "note": np.array(["text"]), "cap.trans_l_mem": object()}
    found = interop.reference_forward("mult", model, {**narrow, **ignored})
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, whole[name], rtol=0, atol=1e-4)
    assert model.training
    assert next(model.parameters()).dtype == torch.float64
    counted = interop.reference_forward("mult", model, {**narrow, "x_a": np.ones((2, 4, 5), int)})
    assert counted["out"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x_a": None}, r"the arrays need 'x_a', the audio \(batch, steps, features\)"),
        ({"x_l": np.zeros((2, 3, 7))}, r"x_l must be \(batch, steps, 20\), got \(2, 3, 7\)"),
        ({"x_v": np.zeros((2, 7))}, r"x_v must be \(batch, steps, 7\), got \(2, 7\)"),
        ({"x_v": np.zeros((2, 0, 7))}, r"x_v must be \(batch, steps, 7\), got \(2, 0, 7\)"),
        ({"x_v": np.zeros((3, 4, 7))}, r"x_l, x_a, x_v must have as many samples, got \[2, 2, 3\]"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change: dict[str, Any], sentence: str) -> None:
    model = interop.from_reference("mult", SMALL, WEIGHTS)
    arrays = {**streams(SMALL, *SHAPE), **change}
    with pytest.raises(DoesNotFit, match=sentence):
        interop.reference_forward("mult", model, {n: a for n, a in arrays.items() if a is not None})


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ({}, "mosei"),
        ({"orig_d_a": 5, "orig_d_v": 20}, "mosi"),
        ({"output_dim": 8}, "iemocap"),
        ({"dataset": "mosi"}, "mosi"),
        ({"dataset": "mosei_senti", "orig_d_a": 5, "orig_d_v": 20}, "mosei"),
        ({"dataset": "iemocap"}, "iemocap"),
    ],
)
def test_the_task_is_that_of_the_words_or_of_the_sizes(words: dict[str, Any], task: str) -> None:
    words = {**SMALL, **words}
    assert mult.overrides(words, published_mult.drawn(words))[0] == f"task={task}"


def test_the_overrides_are_what_one_would_type() -> None:
    words = {**ONE_TARGET, "attn_mask": False, "aligned": True}
    assert mult.overrides(words, drawn(ONE_TARGET)) == [
        "task=mosei",
        "model=mult",
        "task.features=[20,5,7]",
        "task.outputs=1",
        "task.aligned=true",
        "model.targets=[language]",
        "model.width=10",
        "model.layers=1",
        "model.heads=2",
        "model.attention_dropout=[0.1,0.0,0.0]",
        "model.relu_dropout=0.1",
        "model.residual_dropout=0.1",
        "model.embedding_dropout=0.25",
        "model.output_dropout=0.0",
        "model.causal=false",
        "model.kernel=1",
        "model.key_padding_mask=false",
    ]
