"""MDEQ against values recorded from the published implementation, in float64.

`A` is the published thumbnail network with fewer channels, `E` one with a stem of stride 8, two
blocks in a branch, no weight norm and no affine group norms. The files beside this one hold the
weights and the first sample; the feature maps of `A` only every fourth pixel. The whole recordings
are checked where the environment variable EQUIPOISE_FIXTURES names their folder.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from equipoise.equilibrium import Anderson, Equilibrium, Exact, FixedPoint
from equipoise.models import MDEQ

HERE = Path(__file__).parent
Arrays = dict[str, Tensor]

SHAPES: dict[str, dict[str, Any]] = {
    "A": {
        "classes": 10, "image_size": 32, "size": "tiny",
        "channels": (16, 16), "head_channels": (4, 8), "final_channels": 40,
    },
    "C": {
        "classes": 20, "image_size": 96, "size": "small", "groups": 4,
        "channels": (8, 16, 24, 32), "head_channels": (4, 6, 8, 12), "final_channels": 64,
    },
    "E": {
        "classes": 7, "image_size": 32, "stem_stride": 8, "expansion": 2, "groups": 4,
        "channels": (8, 12), "blocks": (1, 2), "head_channels": (3, 3), "final_channels": 20,
        "block_affine": False, "fusion_affine": False, "weight_norm": False,
    },
}  # fmt: skip

# The published names of our parameters and buffers: pattern and replacement, applied in turn.
PUBLISHED_NAMES = [
    (r"^stem\.layers\.0\.conv", r"downsample.0"),
    (r"^stem\.layers\.0\.norm", r"downsample.1"),
    (r"^stem\.layers\.1\.conv", r"downsample.3"),
    (r"^stem\.layers\.1\.norm", r"downsample.4"),
    (r"^stem\.layers\.2\.conv", r"downsample.DS3"),
    (r"^stem\.layers\.2\.norm", r"downsample.DS3-BN"),
    (r"^stem\.projection\.conv", r"stage0.0"),
    (r"^stem\.projection\.norm", r"stage0.1"),
    (r"^cell\.fusion\.paths\.(\d+)\.(\d+)\.", r"fullstage.fuse_layers.\1.\2.net."),
    (r"^cell\.post_fusion\.", r"fullstage.post_fuse_layers."),
    (r"^cell\.branches\.", r"fullstage.branches."),
    (r"^(fullstage.*\.)norm(\d?)\.", r"\1g!norm\2."),
    (r"^(fullstage\.branches.*\.)g!norm", r"\1gn"),
    (r"g!norm", r"gnorm"),
    (r"\.weight\.length$", r".weight_g"),
    (r"\.weight\.direction$", r".weight_v"),
    (r"^head\.widen\.(\d+)\.shortcut", r"incre_modules.\1.0.downsample"),
    (r"^head\.widen\.(\d+)\.conv", r"incre_modules.\1.0.conv"),
    (r"^head\.widen\.(\d+)\.norm", r"incre_modules.\1.0.bn"),
    (r"^head\.down\.(\d+)\.conv", r"downsamp_modules.\1.0"),
    (r"^head\.down\.(\d+)\.norm", r"downsamp_modules.\1.1"),
    (r"^head\.final\.conv", r"final_layer.0"),
    (r"^head\.final\.norm", r"final_layer.1"),
    (r"^head\.classifier", r"classifier"),
]


def published_name(name: str) -> str:
    for pattern, replacement in PUBLISHED_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def read(*paths: Path) -> Arrays:
    arrays = {}
    for path in paths:
        with np.load(path) as file:
            arrays.update({name: torch.from_numpy(file[name]) for name in file})
    return {
        name: array.double() if array.is_floating_point() else array
        for name, array in arrays.items()
    }


def load(variant: str, arrays: Arrays, equilibrium: Equilibrium | None = None) -> MDEQ:
    """Return the network of a recording, in evaluation mode, with every recorded weight used."""
    equilibrium = equilibrium or Equilibrium(FixedPoint(max_steps=400, tol=1e-14), Exact())
    model = MDEQ(equilibrium, **SHAPES[variant]).double().eval()
    names = {published_name(name): name for name in model.state_dict()}
    recorded = {name[3:]: array for name, array in arrays.items() if name.startswith("sd/")}
    assert len(names) == len(model.state_dict())
    model.load_state_dict({names[name]: array for name, array in recorded.items()})
    return model


def states(arrays: Arrays, name: str) -> tuple[Tensor, ...]:
    return tuple(arrays[f"{name}/{i}"] for i in range(4) if f"{name}/{i}" in arrays)


def assert_same(ours: Tensor, recorded: Tensor) -> None:
    torch.testing.assert_close(ours, recorded, rtol=0, atol=1e-10)


@torch.no_grad()
def check_parts(variant: str, arrays: Arrays, every: int = 1) -> None:
    """Compare the injection, f and the head; recorded feature maps have every so-many-th pixel."""
    model = load(variant, arrays)
    z = states(arrays, "z")
    injection = model.stem(arrays["x"])
    assert_same(injection[..., ::every, ::every], arrays["inj/0"])
    for ours, recorded in zip(model.cell(z, injection), states(arrays, "f"), strict=True):
        assert_same(ours[..., ::every, ::every], recorded)
    assert_same(model.head(z), arrays["head_of_z"])


@pytest.fixture(scope="module")
def recordings() -> Path:
    folder = os.environ.get("EQUIPOISE_FIXTURES")
    if not folder:
        pytest.skip("EQUIPOISE_FIXTURES does not name the folder of the whole recordings")
    return Path(folder) / "mdeq"


def test_parts_of_the_thumbnail_network() -> None:
    check_parts("A", read(HERE / "A_weights.npz", HERE / "A.npz"), every=4)


def test_parts_of_the_network_without_weight_norm() -> None:
    check_parts("E", read(HERE / "E.npz"))


def test_logits_at_the_equilibrium() -> None:
    arrays = read(HERE / "A_weights.npz", HERE / "A.npz")
    model = load("A", arrays, Equilibrium(Anderson(max_steps=80, tol=1e-12), Exact()))
    with torch.no_grad():
        assert_same(model(arrays["x"]), arrays["logits_tight"])


@pytest.mark.parametrize("variant", ["A", "C", "E"])
def test_whole_recordings_of_the_parts(recordings: Path, variant: str) -> None:
    check_parts(variant, read(recordings / f"{variant}.npz"))


@pytest.mark.parametrize("variant", ["A", "C"])
def test_whole_recordings_of_the_logits(recordings: Path, variant: str) -> None:
    arrays = read(recordings / f"{variant}.npz")
    model = load(variant, arrays)
    with torch.no_grad():
        assert_same(model(arrays["x"]), arrays["logits_tight"])
    with torch.no_grad():
        assert_same(model.train()(arrays["x"]), arrays["logits_train_implicit"])


def test_whole_recordings_of_the_dropout(recordings: Path) -> None:
    arrays, train = read(recordings / "A.npz"), read(recordings / "A_train.npz")
    model = load("A", arrays)
    masks = states(train, "drop_mask")
    ours = model.cell(states(arrays, "z"), train["inj_train/0"], *masks)
    for output, recorded in zip(ours, states(train, "f_train_dropout"), strict=True):
        assert_same(output, recorded)


def test_whole_recordings_of_the_exact_gradient(recordings: Path) -> None:
    arrays, train = read(recordings / "A.npz"), read(recordings / "A_train.npz")
    solver = FixedPoint(max_steps=400, tol=1e-14)
    model = load("A", arrays, Equilibrium(solver, Exact(solver))).train()
    functional.cross_entropy(model(arrays["x"]), torch.tensor([3, 7])).backward()
    ours = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    recorded = torch.cat(
        [train[f"grad_implicit/{published_name(name)}"].flatten()
         for name, _ in model.named_parameters()]
    )  # fmt: skip
    assert (ours - recorded).norm() <= 1e-8 * recorded.norm()
