"""What the reference would record, from a model in any state, which stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from equipoise.interop import DoesNotFit, from_reference, reference_forward
from equipoise.models import MDEQ
from tests.interop.published_mdeq import SMALL, published, small_network


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
