"""The graph transformer as a whole: what it gives, and what is known of its parts."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from equipoise.equilibrium import Equilibrium, Exact, FixedPoint
from equipoise.models import CouplingTransformer
from equipoise.models.coupling_transformer.layer import GraphLayer
from tests.models.coupling_transformer.molecule_batches import (
    KINDS,
    LABELS,
    batched,
    loss,
    molecule,
    network,
    several,
)

SIZES = {f"{kind}_types": counts for kind, counts in LABELS.items()}
FORMS = ("sine", "learned")
PUBLISHED = {"atom_types": (5, 13, 27), "pair_types": (43, 68, 84), "triplet_types": (29, 118),
             "quad_types": (62,)}  # fmt: skip


@pytest.mark.parametrize("contributions", [True, False])
@pytest.mark.parametrize("quads", [True, False])
def test_pairs_that_are_asked_for_have_their_numbers_and_others_0(
    quads: bool, contributions: bool
) -> None:
    batch = batched(several())
    found = network(quads=quads, contributions=contributions)(batch).standardized
    assert found.shape == (*batch["type"].shape, 5 if contributions else 1)
    asked = batch["type"] > 0
    assert found[asked].all()
    assert not found[~asked].any()


@pytest.mark.parametrize("legacy_indices", [True, False])
@pytest.mark.parametrize("quads", [True, False])
def test_each_is_that_of_the_head_of_its_label(quads: bool, legacy_indices: bool) -> None:
    """Though the last layer reads no more nodes than it has to, and the heads no other pairs."""
    model = network(quads=quads).eval()
    batch = batched([molecule(29), molecule(5, seed=1)])  # as many as legacy indices pad to
    model.legacy_indices = legacy_indices
    found, everything = model(batch).standardized[..., 0], model.of_all_types(batch)
    assert everything.shape == (2, LABELS["pair"][1], found.shape[1])
    picked = everything.gather(1, (batch["pair"][..., 1] - 1).clamp(min=0).unsqueeze(1))[:, 0]
    asked = batch["type"] > 0
    torch.testing.assert_close(found[asked], picked[asked])


def test_a_pair_of_an_unknown_label_is_predicted_to_be_the_mean() -> None:
    batch = batched(several())
    batch["pair"][0, 0] = 0
    assert batch["type"][0, 0] > 0
    model = network()
    assert model(batch).standardized[0, 0] == 0
    loss(model(batch).standardized).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_where_nothing_is_to_be_predicted_all_is_0() -> None:
    batch = batched(several())
    batch["type"].zero_()
    model = network()
    found = model(batch).standardized
    assert found.shape == (3, 15, 1)
    assert not found.any()
    loss(found).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_the_first_layers_are_read_where_pairs_are_few() -> None:
    """One pair alone, and a molecule of which nothing is asked."""
    batch = batched(several())
    batch["type"][0, 1:], batch["type"][1] = 0, 0
    model = network().eval()
    found = model(batch).standardized
    whole = network().eval()(batched(several())).standardized
    torch.testing.assert_close(found[0, 0], whole[0, 0])
    torch.testing.assert_close(found[2], whole[2])
    assert not found[1].any()


@pytest.mark.parametrize("quads", [True, False])
@pytest.mark.parametrize("weight_norm", [True, False])
def test_no_parameter_is_without_a_gradient(quads: bool, weight_norm: bool) -> None:
    model = network(quads=quads, weight_norm=weight_norm, residual_blocks=2)
    loss(model(batched(several())).standardized).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            assert parameter.grad is not None
            assert parameter.grad[:3, :3].any()
            of_torsions = parameter.grad[3].any()  # as queries, which the last layer has none of
            assert of_torsions == (quads and name.startswith("layers.0"))


@settings(deadline=None, max_examples=25)
@given(
    heads=st.integers(1, 3),
    layers=st.integers(1, 3),
    blocks=st.integers(0, 2),
    flags=st.tuples(*4 * [st.booleans()]),
    forms=st.tuples(*4 * [st.sampled_from(FORMS)]),
)
def test_any_network_runs_and_learns(
    heads: int, layers: int, blocks: int, flags: tuple[bool, ...], forms: tuple[str, ...]
) -> None:
    quads, norm, legacy, contributions = flags
    features = {f"{kind}_feature": form for kind, form in zip(KINDS, forms, strict=True)}
    model = network(
        heads=heads, layers=layers, residual_blocks=blocks, quads=quads, weight_norm=norm,
        legacy_indices=legacy, contributions=contributions, feature_width=4, **features,
    ).train()  # fmt: skip
    batch = batched(several())
    found = model(batch).standardized
    assert found[batch["type"] > 0].all()
    loss(found).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("changes", "millions"),
    [
        ({}, 118.0),
        ({"layers": 10, "inner": 3500, "head_width": 200, "residual_blocks": 2}, 84.2),
        ({"width": 750, "layers": 18, "inner": 4000, "head_width": 300, "residual_blocks": 2,
          "quads": True}, 191.7),
    ],
)  # fmt: skip
def test_its_parameters_are_those_of_the_published_sizes(
    changes: dict[str, Any], millions: float
) -> None:
    """Counted by hand from the published shapes."""
    with torch.device("meta"):
        model = CouplingTransformer(**PUBLISHED, **changes)
    sizes = {"width": 650, "layers": 14, "inner": 3800, "head_width": 280, "residual_blocks": 1}
    d, n, inner, f, blocks = (changes.get(name, size) for name, size in sizes.items())
    kinds = ["atom", "pair", "triplet", *(["quad"] if changes.get("quads") else [])]
    of_labels = sum(sum(PUBLISHED[f"{k}_types"]) + len(PUBLISHED[f"{k}_types"]) for k in kinds)
    of_numbers = (len(kinds) + 1) * (d * d + d)
    layer = 16 + 3 * d * d + 3 * d + d * d + 4 * d + d * inner + inner + inner * d + d
    types = 68
    of_heads = types * f * (d + 1) + blocks * 2 * types * f * (f + 1) + types * (f + 1)
    expected = of_labels * d + of_numbers + n * layer + 2 * d + of_heads
    found = sum(p.numel() for p in model.parameters())
    assert found == expected
    assert found / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("legacy_indices", [True, False])
def test_weights_go_out_and_in_again(legacy_indices: bool) -> None:
    changes = {"quads": True, "weight_norm": True, "legacy_indices": legacy_indices}
    model, batch = network(**changes).eval(), batched(several())
    torch.manual_seed(5)
    given_sizes = {"width": 12, "layers": 2, "heads": 2, "inner": 16, "head_width": 5}
    twin = CouplingTransformer(**SIZES, **given_sizes, **changes).double().eval()
    found = model(batch).standardized
    assert not torch.equal(twin(batch).standardized, found)
    twin.load_state_dict(model.state_dict())
    for other in (twin, copy.deepcopy(model)):
        torch.testing.assert_close(other(batch).standardized, found)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "head_dropout"])
def test_evaluation_is_the_same_each_time_and_training_is_not(rate: str) -> None:
    model, batch = network(**{rate: 0.5}), batched(several())
    first, second = (model.eval()(batch).standardized for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, network()(batch).standardized)
    assert not torch.equal(model.train()(batch).standardized, model(batch).standardized)


def test_dropout_is_of_what_attention_adds_and_of_the_hidden_features() -> None:
    layer = network(dropout=1.0).train().layers[0]
    assert isinstance(layer, GraphLayer)
    x = torch.randn(1, 4, 12, dtype=torch.float64)
    bias, there = torch.zeros(1, 4, 4).double(), torch.ones(1, 4, 1).double()
    torch.testing.assert_close(layer(x, bias, there), x + layer.narrow.bias)


def test_a_layer_of_every_node_has_the_rows_of_one_of_some() -> None:
    layer = network().layers[0]
    assert isinstance(layer, GraphLayer)
    x, there = torch.randn(2, 6, 12).double(), (torch.rand(2, 6, 1) < 0.7).double()
    bias = torch.randn(2, 6, 6).double()
    whole = layer(x, bias, there)
    torch.testing.assert_close(layer(x, bias, there, slice(2, 5)), whole[:, 2:5])


def test_half_precision_gives_about_the_same() -> None:
    model, batch = network(quads=True).float().eval(), batched(several())
    batch = {n: t.float() if t.is_floating_point() else t for n, t in batch.items()}
    whole = model(batch).standardized
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch).standardized
        loss(model(batch).standardized.float()).backward()
    torch.testing.assert_close(half.float(), whole, rtol=0.1, atol=0.1)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Of where atoms are, through the distances, and of a layer's gammas."""
    model, batch = network(quads=True, layers=1).eval(), batched([molecule(4), molecule(5)])
    gamma = model.layers[0].get_parameter("attention.gamma")
    assert isinstance(gamma, nn.Parameter)

    def of_position(position: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model({**batch, "position": position}).standardized
        return found

    assert torch.autograd.gradcheck(of_position, (batch["position"].clone().requires_grad_(),))
    model.zero_grad()
    loss(model(batch).standardized).backward()
    assert gamma.grad is not None
    for row, column in itertools.product(range(4), repeat=2):
        slope, step = gamma.grad[row, column].item(), 1e-6
        values = []
        for sign in (1, -1):
            gamma.data[row, column] += sign * step
            values.append(loss(model(batch).standardized).item())
            gamma.data[row, column] -= sign * step
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 5}, "5 heads do not divide a width of 12"),
        ({"quads": True, "quad_types": ()}, "quads=true needs quad_types"),
        ({"pair_feature": "bessel"}, "there is no form 'bessel' of features"),
        ({"pair_feature": "learned", "feature_width": 12}, "feature_width=12 must be above 0 and"),
        ({"dropout": 1.5}, "dropout probability has to be between 0 and 1"),
    ],
)
def test_numbers_that_do_not_fit_are_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        network(**changes)


def test_true_is_no_layer() -> None:
    with pytest.raises(ValueError, match="equilibrium is the layer itself, or False"):
        network(True)
    tight = FixedPoint(max_steps=10, tol=1e-6)
    assert network(Equilibrium(tight, Exact(tight))).equilibrium is not None
