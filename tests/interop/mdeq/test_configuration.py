"""Published configurations, however they are nested, and what the weights add to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equipoise.interop import DoesNotFit
from equipoise.interop.mdeq.configuration import Published, architecture
from tests.interop.published_mdeq import SMALL, configuration, published, small_network

FLAT: dict[str, Any] = {
    **{key: value for key, value in SMALL["MODEL"].items() if key != "EXTRA"},
    **SMALL["MODEL"]["EXTRA"]["FULL_STAGE"],
    "DEQ": SMALL["DEQ"],
    "TRAIN.PRETRAIN_STEPS": 100,
}
DOTTED: dict[str, Any] = {
    **{f"MODEL.{key}": value for key, value in SMALL["MODEL"].items() if key != "EXTRA"},
    **{
        f"MODEL.EXTRA.FULL_STAGE.{key}": value
        for key, value in SMALL["MODEL"]["EXTRA"]["FULL_STAGE"].items()
    },
    "DEQ.F_THRES": 8,
}


@pytest.mark.parametrize("config", [SMALL, FLAT, DOTTED])
def test_nested_flat_and_dotted_mean_the_same(config: dict[str, Any]) -> None:
    arguments = architecture(config, published(small_network()))
    assert arguments == {
        "classes": 10, "head_channels": [2, 3], "final_channels": 6, "channels": [4, 8],
        "blocks": [1, 1], "big_kernels": [0, 0], "expansion": 2, "groups": 4, "stem_stride": 1,
        "block_affine": True, "fusion_affine": True, "post_affine": False,
        "weight_norm": "published", "dropout": 0.1,
    }  # fmt: skip
    assert Published(config).get("DEQ.F_THRES", 0) == 8


@pytest.mark.parametrize("weight_norm", ["none", "blocks", "published", "all"])
def test_the_weights_tell_which_are_normalised(weight_norm: Any) -> None:
    weights = published(small_network(weight_norm=weight_norm))
    silent = configuration(WNORM=None)
    assert architecture(silent, weights)["weight_norm"] == weight_norm


def test_norms_of_the_code_without_switches_are_affine() -> None:
    weights = published(small_network(post_affine=True))
    assert architecture(configuration(POST_GN_AFFINE=False), weights)["post_affine"]


def test_segmentation() -> None:
    weights = published(small_network(classes=None, mask_classes=5, final_kernel=3))
    config = {**configuration(FINAL_CONV_KERNEL=3), "DATASET": {"NUM_CLASSES": 5}}
    arguments = architecture(config, weights)
    assert (arguments["mask_classes"], arguments["final_kernel"]) == (5, 3)
    assert arguments["batch_norm_momentum"] == 0.01
    assert "classes" not in arguments


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "mapping of keys"),
        ({}, "needs NUM_CHANNELS"),
        (configuration(NUM_CHANNELS=[4, 8, 8]), "3 entries for 2 NUM_BRANCHES"),
        (configuration(HEAD_CHANNELS=None), "needs HEAD_CHANNELS"),
    ],
)
def test_what_is_missing_is_named(config: Any, message: str) -> None:
    with pytest.raises(DoesNotFit, match=message):
        architecture(config, published(small_network()))


def test_weights_without_a_head_are_refused() -> None:
    with pytest.raises(DoesNotFit, match="have no head"):
        architecture(SMALL, {"fc.weight": torch.ones(2)})
