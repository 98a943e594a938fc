"""A published network becomes ours, whichever code saved it; what does not fit is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from equipoise.equilibrium import Anderson, Exact, Phantom
from equipoise.interop import DoesNotFit, from_reference, reference_forward
from equipoise.interop.mdeq.weights import published_name
from equipoise.models import MDEQ
from tests.interop.published_mdeq import (
    SMALL,
    configuration,
    published,
    random_weights,
    recorded_shapes,
    small_network,
)

THUMBNAILS = {"NUM_GROUPS": 8, "NUM_CLASSES": 10, "DOWNSAMPLE_TIMES": 0}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "thumbnail_tiny": {
        **THUMBNAILS, "NUM_CHANNELS": [24, 24], "HEAD_CHANNELS": [8, 16], "FINAL_CHANSIZE": 200,
        "POST_GN_AFFINE": False,
    },
    "thumbnail_large": {
        **THUMBNAILS, "NUM_CHANNELS": [32, 64, 128, 256], "HEAD_CHANNELS": [14, 28, 56, 112],
        "FINAL_CHANSIZE": 1680, "POST_GN_AFFINE": False,
    },
    "photograph": {
        "NUM_GROUPS": 8, "NUM_CHANNELS": [32, 64, 128, 256], "HEAD_CHANNELS": [24, 48, 96, 192],
        "FINAL_CHANSIZE": 2048,
    },
    "street": {"NUM_GROUPS": 8, "NUM_CHANNELS": [32, 64, 128, 256], "DATASET.NUM_CLASSES": 19},
}  # fmt: skip
LINEAGES = [
    ("deq2021", "cifar/cls_mdeq_TINY.yaml", "thumbnail_tiny", "published"),
    ("deq2021", "cifar/cls_mdeq_LARGE.yaml", "thumbnail_large", "published"),
    ("deq2021", "imagenet/cls_mdeq_SMALL.yaml", "photograph", "published"),
    ("deq2021", "cityscapes/seg_mdeq_SMALL.yaml", "street", "published"),
    ("mdeq2020", "experiments/cifar/cls_mdeq_TINY.yaml", "thumbnail_tiny", "published"),
    ("mdeq2020", "experiments/imagenet/cls_mdeq_SMALL.yaml", "photograph", "published"),
    ("mdeq2020", "experiments/cityscapes/seg_mdeq_SMALL.yaml", "street", "published"),
    ("pgcifar", "mdeq_LAGRE_phantom_grad.yaml", "thumbnail_large", "published"),
    ("pgcifar", "mdeq_SMALL_phantom_grad.yaml", "thumbnail_tiny", "published"),
    ("pgimagenet", "imagenet_small", "photograph", "published"),
    ("tdcifar", "large", "thumbnail_large", "all"),
    ("tdcifar", "small", "thumbnail_tiny", "all"),
    ("tdimagenet", "imagenet_small", "photograph", "blocks"),
]


@pytest.mark.parametrize("changes", [
    {}, {"weight_norm": "all"}, {"weight_norm": "blocks"}, {"weight_norm": "none"},
    {"classes": None, "mask_classes": 10},
])  # fmt: skip
def test_every_value_arrives(changes: dict[str, Any]) -> None:
    theirs = small_network(**changes)
    given = {**configuration(WNORM=None), "DATASET": {"NUM_CLASSES": 10}}
    ours = from_reference("mdeq", given, published(theirs))
    expected = theirs.state_dict()
    assert set(ours.state_dict()) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())


def test_solver_and_gradient_are_the_configurations_or_those_that_are_given() -> None:
    weights = published(small_network())
    layer = from_reference("mdeq", SMALL, weights).equilibrium
    assert (layer.solver.name, layer.gradient.name) == ("broyden", "exact")
    phantom = {**SMALL, "TRAIN": {"PG_STEPS": 3, "TAU": 0.6}}
    assert from_reference("mdeq", phantom, weights).equilibrium.gradient == Phantom(3, 0.6)
    solver, gradient = Anderson(max_steps=3), Exact(Anderson(max_steps=4))
    layer = from_reference("mdeq", SMALL, weights, solver=solver, gradient=gradient).equilibrium
    assert layer.solver is solver
    assert layer.gradient is gradient


def test_double_weights_stay_double() -> None:
    weights = published(small_network().double())
    assert from_reference("mdeq", SMALL, weights).stem.layers[0].conv.weight.dtype == torch.float64


def test_a_single_branch_does_without_the_weights_behind_it() -> None:
    theirs = small_network(channels=(4,), head_channels=(2,))
    weights = published(theirs)
    weights["fullstage.post_fuse_layers.0.conv.weight_g"] = torch.ones(4, 1, 1, 1)
    config = configuration(NUM_BRANCHES=1, NUM_CHANNELS=[4], HEAD_CHANNELS=[2], NUM_BLOCKS=[1],
                           BIG_KERNELS=[0])  # fmt: skip
    assert len(from_reference("mdeq", config, weights).size.channels) == 1


def test_everything_that_does_not_fit_is_named() -> None:
    weights = published(small_network())
    del weights["fullstage.branches.0.blocks.0.gn1.weight"]
    weights["fullstage.extra.weight"] = torch.ones(2)
    weights["classifier.bias"] = torch.ones(3)
    with pytest.raises(ValueError, match="do not fit") as caught:
        from_reference("mdeq", SMALL, weights)
    assert "missing: fullstage.branches.0.blocks.0.gn1.weight;" in str(caught.value)
    assert "unknown: fullstage.extra.weight;" in str(caught.value)
    assert "classifier.bias of shape [3] instead of [10]" in str(caught.value)


def test_counters_of_batches_may_be_absent() -> None:
    weights = published(small_network())
    older = {n: tensor for n, tensor in weights.items() if not n.endswith("num_batches_tracked")}
    assert len(older) < len(weights)
    model = from_reference("mdeq", SMALL, older)
    assert torch.equal(model.stem.layers[0].norm.running_mean, weights["downsample.1.running_mean"])


def test_where_the_configuration_is_silent_the_weights_say_whether_norms_are_affine() -> None:
    shapes = {"block_affine": False, "fusion_affine": False, "post_affine": True}
    silent = configuration(POST_GN_AFFINE=None)
    size = from_reference("mdeq", silent, published(small_network(**shapes))).size
    assert {name: getattr(size, name) for name in shapes} == shapes


def test_a_normalised_network_needs_normalised_weights() -> None:
    with pytest.raises(DoesNotFit, match=r"missing: .*weight_g"):
        from_reference("mdeq", SMALL, published(small_network(weight_norm="none")))


def test_shapes_that_no_mdeq_has_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 3"):
        from_reference("mdeq", configuration(NUM_GROUPS=3), published(small_network()))


@pytest.mark.parametrize(("lineage", "file", "kind", "weight_norm"), LINEAGES)
def test_whole_recordings_of_every_lineage(
    lineage: str, file: str, kind: str, weight_norm: str
) -> None:
    weights = random_weights(recorded_shapes()[lineage][file])
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    model = from_reference("mdeq", CONFIGURATIONS[kind], {"state_dict": wrapped})
    normalised = {name for name, _ in model.named_parameters() if name.endswith("length")}
    assert any("fusion.paths" in name for name in normalised) == (weight_norm == "all")
    assert any("post_fusion" in name for name in normalised) == (weight_norm != "blocks")
    for name, tensor in model.state_dict().items():
        theirs = published_name(name)
        if theirs not in weights:
            theirs = theirs.replace("fullstage.", "full_stage.")
        assert torch.equal(tensor, weights[theirs].to(tensor.dtype)), name


def model() -> MDEQ:
    found = from_reference("mdeq", SMALL, published(small_network()))
    assert isinstance(found, MDEQ)
    return found


def images(dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(dtype)


def test_the_state_is_a_fixed_point_and_the_logits_are_the_heads() -> None:
    network = model()
    first = reference_forward("mdeq", network, {"x": images()})
    z = {f"z/{i}": first[f"zstar_tight/{i}"] for i in (0, 1)}
    again = reference_forward("mdeq", network, {"x": images(), **z, "unknown": np.zeros(2)})
    for i in (0, 1):
        np.testing.assert_allclose(again[f"f/{i}"], z[f"z/{i}"], atol=1e-11)
    np.testing.assert_allclose(again["head_of_z"], first["logits_tight"], atol=1e-10)
    assert set(first) == {"inj/0", "zstar_tight/0", "zstar_tight/1", "logits_tight"}
    assert set(again) == {*first, "f/0", "f/1", "head_of_z"}


def test_the_widest_dtype_of_the_arrays_is_used() -> None:
    narrow = reference_forward("mdeq", model(), {"x": torch.from_numpy(images(np.float32))})
    assert narrow["logits_tight"].dtype == np.float32
    wide = {"x": images(np.float32), "z/0": np.zeros((2, 4, 8, 8)), "z/1": np.zeros((2, 8, 4, 4))}
    found = reference_forward("mdeq", model(), wide)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float64)}
    np.testing.assert_allclose(found["logits_tight"], narrow["logits_tight"], rtol=1e-3)


def test_a_model_in_double_precision_is_not_narrowed_by_its_images() -> None:
    network, narrow = model().double(), images(np.float32)
    text = np.array(["recorded by nobody"])
    found = reference_forward("mdeq", network, {"x": narrow, "made_by": text})
    assert found["logits_tight"].dtype == np.float64
    expected = reference_forward("mdeq", network, {"x": narrow.astype(np.float64)})
    np.testing.assert_array_equal(found["logits_tight"], expected["logits_tight"])


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
def test_the_model_stays_as_it_was() -> None:
    network = model().train()
    network(torch.from_numpy(images(np.float32))).sum().backward()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report, layer = network.equilibrium.report, network.equilibrium
    expected = reference_forward("mdeq", network, {"x": images()})
    assert network.training
    assert network.equilibrium is layer
    assert layer.report is report
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
    found = reference_forward("mdeq", network.eval().double(), {"x": images()})
    np.testing.assert_allclose(found["logits_tight"], expected["logits_tight"], atol=1e-10)


def test_the_images_are_needed() -> None:
    with pytest.raises(DoesNotFit, match="need 'x'"):
        reference_forward("mdeq", model(), {"z/0": images()})
