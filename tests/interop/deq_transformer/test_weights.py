"""Published weights in all their layouts, and what is said where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from equipoise.equilibrium import Anderson, Broyden, Exact
from equipoise.interop.deq_transformer import from_reference, overrides, reference_forward
from equipoise.interop.deq_transformer.weights import primary
from equipoise.interop.published_configuration import DoesNotFit
from tests.interop.deq_transformer.published_transformer import CONFIG, of_2020, published

RECORDED = Path(__file__).parents[2] / "parity" / "deq_lm"
DATA = torch.arange(12).view(6, 2)


def losses(model: torch.nn.Module) -> torch.Tensor:
    arrays = {"data": DATA.numpy(), "target": (DATA + 20).numpy()}
    return torch.from_numpy(reference_forward(model, arrays)["nll_token_order"])


def test_both_layouts_are_one_model() -> None:
    weights = published()
    new, old = from_reference(CONFIG, weights), from_reference(CONFIG, of_2020(weights))
    torch.testing.assert_close(losses(old), losses(new), rtol=0, atol=0)


def test_the_recorded_names_of_2020_are_all_understood() -> None:
    names = json.loads((RECORDED / "keys_v1_transformer_A2cfg.json").read_text())
    config = json.loads((RECORDED / "configurations.json").read_text())["A2"]
    torch.manual_seed(0)
    values = {shape: torch.randn(shape) for shape in map(tuple, names.values())}
    model = from_reference(config, {name: values[tuple(shape)] for name, shape in names.items()})
    assert model.size.embedding_width == 64


@pytest.mark.parametrize("prefix", ["module.", "model.module."])
def test_prefixes_and_checkpoints_are_taken_off(prefix: str) -> None:
    weights = published()
    wrapped = {"state_dict": {f"{prefix}{name}": tensor for name, tensor in weights.items()}}
    assert set(primary(wrapped)) == set(primary(weights))


@pytest.mark.parametrize(("divisor", "embedding_width"), [(1, 12), (1, 16), (2, 12)])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_further_variants_load(divisor: int, embedding_width: int, weight_norm: bool) -> None:
    weights = published(
        divisor=divisor, embedding_width=embedding_width, weight_norm=weight_norm
    )  # fmt: skip
    config = {**CONFIG, "div_val": divisor, "d_embed": embedding_width, "pre_lnorm": True}
    model = from_reference(config, weights)
    assert model.cell.norm == "published_pre"
    assert torch.isfinite(losses(model)).all()


def test_ties_follow_the_values() -> None:
    weights = published()
    model = from_reference(CONFIG, weights)
    shared = [a is b for a, b in zip(model.softmax.projections, model.embedding.projections)]  # noqa: B905
    assert shared == [False, True, True]
    assert model.softmax.tables[1] is model.embedding.tables[1]
    weights["crit.out_projs.1.weight"] = weights["crit.out_projs.1.weight"] + 1
    weights["crit.out_layers.0.weight"] = weights["crit.out_layers.0.weight"] + 1
    freed = from_reference(CONFIG, weights)
    assert freed.softmax.projections[1] is not freed.embedding.projections[1]
    assert freed.softmax.tables[0] is not freed.embedding.tables[0]
    with pytest.raises(DoesNotFit, match="tied is set, but"):
        from_reference({**CONFIG, "tied": True}, weights)


def test_one_name_of_a_tied_weight_is_enough() -> None:
    weights = published()
    expected = losses(from_reference(CONFIG, weights))
    fewer = {n: t for n, t in weights.items() if n != "crit.out_layers.1.weight"}
    del fewer["crit.out_projs.2.weight"]
    torch.testing.assert_close(losses(from_reference(CONFIG, fewer)), expected, rtol=0, atol=0)


def test_the_weights_tell_what_the_configuration_does_not() -> None:
    model = from_reference({}, published())
    assert (model.size.width, model.size.heads, model.size.inner_width) == (12, 2, 20)
    assert (model.size.divisor, list(model.size.cutoffs)) == (2, [10, 20])


def test_solvers_are_the_configuration_s_or_the_given() -> None:
    model = from_reference({"DEQ": CONFIG}, published())
    assert model.equilibrium.solver == Anderson(max_steps=9, memory=6)
    assert model.equilibrium.gradient == Exact(Broyden(max_steps=11, memory=11))
    given = from_reference(CONFIG, published(), solver=Broyden())
    assert given.equilibrium.solver == Broyden()


def test_the_code_of_2020_solved_by_broyden_within_one_budget() -> None:
    silent = {name: value for name, value in CONFIG.items() if name not in ("f_solver", "b_solver")}
    layer = from_reference(silent, of_2020(published())).equilibrium
    assert layer.solver == Broyden(max_steps=9, memory=9)
    assert layer.gradient == Exact(Broyden(max_steps=9, memory=9))
    assert from_reference(silent, published()).equilibrium.solver == Anderson(max_steps=9, memory=6)


def test_float64_weights_make_a_float64_model() -> None:
    weights = {name: tensor.double() for name, tensor in published().items()}
    assert from_reference(CONFIG, weights).injection.weight.dtype == torch.float64


def test_everything_that_does_not_fit_is_named() -> None:
    weights = published()
    weights["func.extra"] = torch.zeros(2)
    weights["inject_conv.bias"] = torch.zeros(7)
    del weights["crit.cluster_bias"]
    with pytest.raises(DoesNotFit) as error:
        from_reference(CONFIG, weights)
    said = str(error.value)
    assert "missing: crit.cluster_bias" in said
    assert "unknown: func.extra" in said
    assert "inject_conv.bias of shape [7] instead of [36]" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"d_head": 5}, "not as wide as d_model"),
        ({"f_solver": "newton"}, "f_solver is newton"),
        ({"stop_mode": "never"}, "stop_mode is never"),
        ({"n_token": 41}, "word_emb.emb_layers.2.weight of shape"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(DoesNotFit, match=said):
        from_reference({**CONFIG, **changes}, published())


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "have no 'word_emb"),
        ({"word_emb": "text"}, "is not a tensor"),
        ([], "are a state dict"),
    ],
)
def test_what_is_no_such_model_is_refused(weights: object, said: str) -> None:
    with pytest.raises(DoesNotFit, match=said):
        from_reference(CONFIG, weights)


def test_differing_copies_are_named_in_a_warning() -> None:
    weights = of_2020(published())
    weights["deq.func.dec_attn.o_net.bias"] = torch.ones(12)
    with pytest.warns(UserWarning, match=r"duplicates differ .* func.dec_attn.o_net.bias"):
        from_reference(CONFIG, weights)


def test_half_a_memory_and_no_data_are_refused() -> None:
    model = from_reference(CONFIG, published())
    with pytest.raises(DoesNotFit, match="'mem_z' alone is not a memory"):
        reference_forward(model, {"data": DATA.numpy(), "mem_z": torch.zeros(3, 2, 12).numpy()})
    with pytest.raises(DoesNotFit, match="the arrays need 'data'"):
        reference_forward(model, {"z_in": torch.zeros(2, 12, 6).numpy()})


def test_the_overrides_are_what_one_would_type() -> None:
    typed = overrides({**CONFIG, "dataset": "wt103"}, published())
    assert typed[:3] == ["task=wikitext103", "model=deq_transformer", "task.vocabulary=40"]
    assert "model.tie_projections=[false,true,true]" in typed
    assert "solver=anderson" in typed
    assert "gradient.solver.max_steps=11" in typed
