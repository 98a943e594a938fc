"""MDEQ in evaluation mode against recorded values: injection, f, heads, and the equilibrium."""

from __future__ import annotations

import pytest
import torch
from mdeq_recordings import HERE, Arrays, assert_same, network, read, states, whole
from torch.nn import functional

from equipoise.interop import reference_forward
from equipoise.models.mdeq.stem_and_heads import ClassificationHead, SegmentationHead

pytestmark = pytest.mark.usefixtures("compiles_f")


def check_parts(variant: str, arrays: Arrays, every: int = 1) -> None:
    """Compare one evaluation; recorded feature maps may have every so-many-th pixel alone."""
    ours = reference_forward("mdeq", network(variant, arrays), arrays)
    names = ["inj/0", *(name for name in arrays if name.startswith("f/"))]
    assert len(names) > 2
    for name in names:
        assert_same(torch.from_numpy(ours[name][..., ::every, ::every]), arrays[name])
    assert_same(torch.from_numpy(ours["head_of_z"]), arrays["head_of_z"])


def test_parts_of_the_thumbnail_network() -> None:
    check_parts("A", read(HERE / "A_weights.npz", HERE / "A.npz"), every=4)


def test_parts_of_the_network_without_weight_norm() -> None:
    """It has no stable fixed point: the tight solve says so, and the rest is answered."""
    with pytest.warns(UserWarning, match="did not reach the tolerance"):
        check_parts("E", read(HERE / "E.npz"))


def test_logits_at_the_equilibrium() -> None:
    arrays = read(HERE / "A_weights.npz", HERE / "A.npz")
    ours = reference_forward("mdeq", network("A", arrays), {"x": arrays["x"]})
    assert_same(torch.from_numpy(ours["logits_tight"]), arrays["logits_tight"])


@pytest.mark.filterwarnings("ignore:.*did not reach the tolerance")
@pytest.mark.parametrize("variant", ["A", "C", "D", "E"])
def test_whole_recordings_of_the_parts(variant: str) -> None:
    check_parts(variant, whole(variant))


@pytest.mark.parametrize("variant", ["A", "C", "D"])
def test_whole_recordings_of_the_equilibrium(variant: str) -> None:
    arrays = whole(variant)
    ours = reference_forward("mdeq", network(variant, arrays), arrays)
    names = ["logits_tight", *(name for name in arrays if name.startswith("zstar_tight/"))]
    assert len(names) > 2
    for name in names:
        assert_same(torch.from_numpy(ours[name]), arrays[name])


@pytest.mark.parametrize("variant", ["A", "C", "D"])
def test_whole_recordings_of_the_network_itself(variant: str) -> None:
    arrays = whole(variant)
    model = network(variant, arrays)
    with torch.no_grad():
        assert_same(model(arrays["x"]), arrays["logits_tight"])
        assert_same(model.train()(arrays["x"]), arrays["logits_train_implicit"])


def test_whole_recordings_of_both_heads() -> None:
    classes, masks = whole("C"), whole("D")
    assert isinstance(network("C", classes).heads["logits"], ClassificationHead)
    model = network("D", masks)
    assert isinstance(model.heads["mask_logits"], SegmentationHead)
    assert model.heads["mask_logits"].mix.norm.momentum == 0.01
    logits = model.readout(states(masks, "zstar_tight"))
    for aligned in (True, False):
        larger = functional.interpolate(
            logits, size=(64, 96), mode="bilinear", align_corners=aligned
        )
        assert_same(larger[..., ::8, ::8], masks[f"logits_up_align{aligned}_stride8"])
