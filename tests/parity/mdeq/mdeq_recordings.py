"""Values recorded from the published implementation, and the networks that they belong to.

`A` is the published thumbnail network with fewer channels, `C` the one for ImageNet, `D` the one
for Cityscapes, `E` one with a stem of stride 8, two blocks in a branch, no weight norm and no
affine group norms. The files beside this one hold the first sample of A and E, with A's feature
maps only every fourth pixel, and what A's training gives as numbers. The whole recordings are found
where the environment variable EQUIPOISE_FIXTURES names their folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equipoise.equilibrium import Equilibrium, Exact, FixedPoint
from equipoise.equilibrium.gradients import GradientEstimator
from equipoise.interop import from_reference
from equipoise.models import MDEQ

HERE = Path(__file__).parent
CONFIGURATIONS: dict[str, dict[str, Any]] = json.loads((HERE / "configurations.json").read_text())
LABELS = torch.tensor([3, 7])
Arrays = dict[str, Tensor]

TIGHT = FixedPoint(max_steps=400, tol=1e-14)


def read(*paths: Path) -> Arrays:
    arrays = {}
    for path in paths:
        with np.load(path) as file:
            numbers = {name: file[name] for name in file if file[name].dtype.kind != "U"}
            arrays.update({name: torch.from_numpy(array) for name, array in numbers.items()})
    return {
        name: array.double() if array.is_floating_point() else array
        for name, array in arrays.items()
    }


def whole(*names: str) -> Arrays:
    """The arrays of whole recordings; skips the test where there are none."""
    folder = os.environ.get("EQUIPOISE_FIXTURES")
    if not folder:
        pytest.skip("EQUIPOISE_FIXTURES does not name the folder of the whole recordings")
    return read(*(Path(folder) / "mdeq" / f"{name}.npz" for name in names))


def network(variant: str, arrays: Arrays, gradient: GradientEstimator | None = None) -> MDEQ:
    """The network of a recording in float64, in evaluation mode, with a tight solver."""
    weights = {name[3:]: array for name, array in arrays.items() if name.startswith("sd/")}
    # Dropout was off in all recordings of training but that of the masks.
    config = {**CONFIGURATIONS[variant], "DROPOUT": 0.0}
    layer_gradient = gradient or Exact(TIGHT)
    model = from_reference("mdeq", config, weights, solver=TIGHT, gradient=layer_gradient)
    assert isinstance(model, MDEQ)
    assert isinstance(model.equilibrium, Equilibrium)
    return model.double().eval()


def states(arrays: Arrays, name: str) -> tuple[Tensor, ...]:
    return tuple(arrays[f"{name}/{i}"] for i in range(4) if f"{name}/{i}" in arrays)


def assert_same(ours: Tensor, recorded: Tensor, tolerance: float = 1e-10) -> None:
    """The largest difference, relative to the largest value."""
    difference = (ours - recorded).abs().max()
    assert difference <= tolerance * recorded.abs().max(), f"they differ by {difference:.1e}"
