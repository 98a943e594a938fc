"""Values recorded from the published sequence models in float64, and the networks they belong to.

A and A2 are post-norm transformers, B the published pre-norm one with a local window, C the
equilibrium trellis network, C2 the explicit one; two consecutive segments each. The files beside
this one hold the weights, the second segment, and of each gradient its norm and its product with
cos(1), cos(2), ... The whole recordings are found where the environment variable EQUIPOISE_FIXTURES
names their folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equipoise.equilibrium import Broyden, Exact, GradientEstimator
from equipoise.interop import deq_transformer, deq_trellisnet, trellisnet
from equipoise.interop.deq_transformer.weights import published_name
from equipoise.interop.published_weights import bare_entries
from equipoise.models import DEQTransformer, DEQTrellisNet, TrellisNet

HERE = Path(__file__).parent
CONFIGURATIONS: dict[str, dict[str, Any]] = json.loads((HERE / "configurations.json").read_text())
WHOLE = {
    "A": "A_postln_div1",
    "A2": "A2_postln_div4_wnorm",
    "B": "B_preln_div2_wnorm_local6",
    "C": "C_deq_trellisnet",
    "C2": "C2_trellisnet_explicit",
}
TOLERANCE = 1e-9
TIGHT = Broyden(max_steps=150, tol=1e-14, memory=100, patience=150)
Arrays = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


def read(path: Path) -> Arrays:
    """The arrays of a file: weights as they are, all other numbers as the models take them."""
    with np.load(path) as file:
        numbers = {name: file[name] for name in file if file[name].dtype.kind in "fi"}
    arrays = {name: torch.from_numpy(array) for name, array in numbers.items()}
    return {n: a.double() if a.is_floating_point() else a.long() for n, a in arrays.items()}


def trimmed(variant: str) -> Arrays:
    return read(HERE / f"{variant}.npz")


def whole(name: str) -> Arrays:
    """The arrays of a whole recording; skips the test where there is none."""
    folder = os.environ.get("EQUIPOISE_FIXTURES")
    if not folder:
        pytest.skip("EQUIPOISE_FIXTURES does not name the folder of the whole recordings")
    return read(Path(folder) / "deq_lm" / f"{WHOLE.get(name, name)}.npz")


def weights(arrays: Mapping[str, Tensor]) -> Arrays:
    return {n.removeprefix("sd/"): a for n, a in arrays.items() if n.startswith(("sd/", "crit/"))}


def transformer(
    variant: str, arrays: Arrays, gradient: GradientEstimator | None = None
) -> DEQTransformer:
    gradient = gradient or Exact(TIGHT)
    model = deq_transformer.from_reference(
        CONFIGURATIONS[variant], weights(arrays), solver=TIGHT, gradient=gradient
    )
    return model.eval()


def equilibrium_trellis(arrays: Arrays) -> DEQTrellisNet:
    model = deq_trellisnet.from_reference(
        CONFIGURATIONS["C"], weights(arrays), solver=TIGHT, gradient=Exact(TIGHT)
    )
    return model.eval()


def explicit_trellis(arrays: Arrays) -> TrellisNet:
    return trellisnet.from_reference(CONFIGURATIONS["C2"], weights(arrays)).eval()


def segment(arrays: Arrays, number: int) -> Arrays:
    """What is recorded of one segment, with the memory of the one before as mem_z and mem_u."""
    own = {
        n.removeprefix(f"seg{number}/"): a
        for n, a in arrays.items()
        if n.startswith(f"seg{number}/")
    }
    if number and "seg0/new_mem_z" in arrays:
        own |= {"mem_z": arrays["seg0/new_mem_z"], "mem_u": arrays["seg0/new_mem_u"]}
    return own


def below(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with `prefix`, by the rest of their names."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def memory_of(recorded: Arrays) -> tuple[Tensor, ...] | None:
    if "mem_z" not in recorded:
        return None
    return tuple(recorded[name].transpose(0, 1) for name in ("mem_z", "mem_u"))


def assert_same(ours: Tensor | np.ndarray, recorded: Tensor, name: str = "") -> None:
    """The largest difference, relative to the largest value."""
    ours = torch.as_tensor(ours)
    assert ours.shape == recorded.shape, name
    difference = (ours - recorded).abs().max()
    assert difference <= TOLERANCE * recorded.abs().max(), f"{name} differs by {difference:.1e}"


def published_gradients(model: DEQTransformer) -> Arrays:
    """Gradients by published names, zeros where a parameter does not matter."""
    named = model.named_parameters()
    return {published_name(n): torch.zeros_like(p) if p.grad is None else p.grad for n, p in named}


def recorded_gradients(arrays: Arrays, prefix: str) -> Arrays:
    """Gradients by name in the form of our parameters, whole or as summaries."""
    found = {
        n.removeprefix(f"{prefix}/"): a for n, a in arrays.items() if n.startswith(f"{prefix}/")
    }
    return dict(bare_entries(found))


def with_tied_sums(model: DEQTransformer, recorded: Arrays) -> Arrays:
    """Add the halves that the published code keeps of a shared projection: it has two gradients."""
    summed = dict(recorded)
    for index, projection in enumerate(model.softmax.projections):
        half = f"crit.out_projs.{index}.weight"
        for place, shared in enumerate(model.embedding.projections):
            if shared is projection and half in summed:
                name = f"word_emb.emb_projs.{place}.weight"
                summed[name] = summed[name] + summed.pop(half)
    return summed


def assert_same_gradients(ours: Arrays, recorded: Arrays) -> None:
    assert recorded
    assert set(recorded) <= set(ours)
    for name, expected in recorded.items():
        difference = (ours[name] - expected).norm()
        assert difference <= TOLERANCE * expected.norm(), f"{name} differs by {difference:.1e}"


def assert_same_summaries(ours: Arrays, recorded: Arrays) -> None:
    """Norm and product with a fixed vector, both relative to the norm."""
    assert recorded
    assert set(recorded) <= set(ours)
    for name, (norm, product) in recorded.items():
        flat = ours[name].flatten()
        waves = torch.arange(1, flat.numel() + 1, dtype=torch.float64).cos()
        found = torch.stack((flat.norm(), flat @ waves))
        limit = TOLERANCE * max(1.0, float(waves.norm())) * norm
        assert (found - torch.stack((norm, product))).abs().max() <= limit, name
