"""Published configurations and state dicts of MDEQ, made up from the published files' layout."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equipoise.interop.mdeq.weights import published_name
from equipoise.models import MDEQ

SMALL: dict[str, Any] = {
    "MODEL": {
        "NAME": "mdeq", "NUM_LAYERS": 4, "NUM_CLASSES": 10, "NUM_GROUPS": 4, "DROPOUT": 0.1,
        "WNORM": True, "DOWNSAMPLE_TIMES": 0, "EXPANSION_FACTOR": 2, "POST_GN_AFFINE": False,
        "IMAGE_SIZE": [32, 32],
        "EXTRA": {"FULL_STAGE": {
            "NUM_MODULES": 1, "NUM_BRANCHES": 2, "BLOCK": "BASIC", "BIG_KERNELS": [0, 0],
            "HEAD_CHANNELS": [2, 3], "FINAL_CHANSIZE": 6, "NUM_BLOCKS": [1, 1],
            "NUM_CHANNELS": [4, 8], "FUSE_METHOD": "SUM",
        }},
    },
    "DEQ": {"F_SOLVER": "broyden", "B_SOLVER": "anderson", "STOP_MODE": "rel",
            "F_THRES": 8, "B_THRES": 7},
    "DATASET": {"DATASET": "cifar10"},
    "TRAIN": {"PRETRAIN_STEPS": 100},
}  # fmt: skip


def configuration(**changes: Any) -> dict[str, Any]:
    """The small configuration with some keys of MODEL, or of its FULL_STAGE, replaced."""
    config = copy.deepcopy(SMALL)
    stage = config["MODEL"]["EXTRA"]["FULL_STAGE"]
    for key, value in changes.items():
        (stage if key in stage else config["MODEL"])[key] = value
    return config


def small_network(**changes: Any) -> MDEQ:
    """Ours of the same shapes, with random weights and statistics."""
    torch.manual_seed(0)
    shapes: dict[str, Any] = {
        "classes": 10, "image_size": 32, "channels": (4, 8), "head_channels": (2, 3),
        "final_channels": 6, "expansion": 2, "groups": 4,
    }  # fmt: skip
    model = MDEQ(nn.Identity(), **{**shapes, **changes})
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return model


def published(model: MDEQ) -> dict[str, Tensor]:
    return {published_name(name): tensor for name, tensor in model.state_dict().items()}


def recorded_shapes() -> dict[str, dict[str, dict[str, list[int]]]]:
    """Names and shapes by lineage and configuration; skips the test where there are none."""
    folder = os.environ.get("EQUIPOISE_FIXTURES")
    if not folder:
        pytest.skip("EQUIPOISE_FIXTURES does not name the folder of the whole recordings")
    recorded: dict[str, Any] = json.loads((Path(folder) / "mdeq" / "keys.json").read_text())
    return recorded


def random_weights(shapes: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Random tensors of these shapes; `deq.func.*` are `fullstage.*`, as in the files."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    for name in weights:
        if name.startswith("deq.func."):
            weights[name] = weights[name.replace("deq.func.", "fullstage.", 1)]
    return weights
