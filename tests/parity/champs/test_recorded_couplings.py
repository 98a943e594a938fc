"""The graph transformers of couplings against values recorded from the published code in float32.

dataset.npz, the networks' weights and what is kept of their outputs lie beside this file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray
from safetensors.torch import load_file
from torch import Tensor

from equipoise import interop
from equipoise.data.molecules.tables import TYPES
from equipoise.interop.coupling_transformer.model import (
    PublishedTransformer,
    batch_of_arrays,
    published_name,
)
from equipoise.models.coupling_transformer.distances import squared_distances
from equipoise.tasks.scalar_coupling import Loss, coupling_loss
from tests.interop import published_graph_transformer as published

HERE = Path(__file__).parent
CASES = json.loads((HERE / "graph_transformers.json").read_text())
TOLERANCE = 1e-5
LOSSES: list[tuple[str, Loss]] = [("abs", "absolute"), ("champs", "log_mae")]


def arrays(path: Path) -> dict[str, ndarray]:
    with np.load(path) as file:
        return dict(file)


DATASET = arrays(HERE / "dataset.npz")


@dataclass(frozen=True)
class Recording:
    """A network's words and weights, its molecules, what came out, and what is told of it."""

    words: dict[str, Any]
    weights: dict[str, Tensor]
    inputs: dict[str, ndarray]
    outputs: dict[str, ndarray]
    told: dict[str, Any]

    def model(self) -> PublishedTransformer:
        model = interop.from_reference("coupling_transformer", self.words, self.weights)
        assert isinstance(model, PublishedTransformer)
        return model.eval()

    def y_pred(self) -> ndarray:
        return interop.reference_forward("coupling_transformer", self.model(), self.inputs)[
            "y_pred"
        ]

    def batch(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The molecules as the data modules give them."""
        model = self.model()
        tensors = {name: torch.as_tensor(array) for name, array in self.inputs.items()}
        batch = batch_of_arrays(tensors, model)
        true, mean, deviation, asked = tensors["y"][:, : model.max_pairs].unbind(dim=-1)
        numbers = {"coupling": true, "mean": mean, "deviation": deviation.nan_to_num()}
        batch |= {name: number.unsqueeze(-1) for name, number in numbers.items()}
        batch = {n: t.to(dtype) if t.is_floating_point() else t for n, t in batch.items()}
        coarse = batch["pair"][..., 0]
        of_a_type = (asked > 0) & (coarse > 0) & (coarse <= len(TYPES))
        return batch | {"type": torch.where(of_a_type, coarse, 0)}


@pytest.fixture(scope="module", params=CASES)
def recording(request: pytest.FixtureRequest) -> Recording:
    told, outputs = CASES[request.param], arrays(HERE / f"{request.param}.npz")
    words = {**told["ctor"], **{word: told[word] for word in ("source_dir", "max_bond_count")}}
    weights = load_file(HERE / f"{request.param}.weights.safetensors")
    inputs = {name: array[outputs["mol_index"]] for name, array in DATASET.items()}
    return Recording(words, weights, inputs, outputs, told)


def predicted(
    model: PublishedTransformer, batch: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted and true couplings in Hz and their types, of those that are asked for."""
    asked = batch["type"] > 0
    values = model(batch).standardized * batch["deviation"] + batch["mean"]
    return values[asked][:, 0], batch["coupling"][asked][:, 0], batch["type"][asked]


def test_every_head_makes_of_every_pair_what_was_recorded(recording: Recording) -> None:
    found = recording.y_pred()
    assert list(found.shape) == recording.told["out_shape"]
    assert found.dtype == np.float32
    recorded = recording.outputs["y_pred_valid"]
    np.testing.assert_allclose(found[..., : recorded.shape[2]], recorded, rtol=0, atol=TOLERANCE)
    sums, sizes = found.astype(float).sum(axis=(1, 2)), found[0].size
    expected = recording.outputs["y_pred_full_sum"]
    np.testing.assert_allclose(sums, expected, rtol=0, atol=TOLERANCE * sizes**0.5)


def test_in_float64_it_is_the_same_to_the_recording_s_round_off(recording: Recording) -> None:
    double = {n: a.astype(float) if a.dtype.kind == "f" else a for n, a in recording.inputs.items()}
    found = interop.reference_forward("coupling_transformer", recording.model(), double)["y_pred"]
    recorded = recording.outputs["y_pred_valid"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[..., : recorded.shape[2]], recorded, rtol=0, atol=TOLERANCE)


def test_the_couplings_are_those_recorded_in_hertz(recording: Recording) -> None:
    """Of the head of each pair's own type, also where the pair is not to be predicted."""
    batch, model = recording.batch(torch.float32), recording.model()
    recorded = recording.outputs["y_scaled_valid"]
    everywhere = batch | {"type": batch["pair_present"].long()}
    found = model(everywhere).standardized * batch["deviation"] + batch["mean"]
    np.testing.assert_allclose(
        found.detach()[:, : recorded.shape[1], 0], recorded, rtol=1e-5, atol=TOLERANCE
    )


def test_distances_are_those_recorded(recording: Recording) -> None:
    batch, quads = recording.batch(torch.float32), recording.model().quads
    recorded, atoms = recording.outputs["D_first"], batch["atom"].shape[1]
    found = squared_distances(batch, quads=quads, legacy=True)[0].numpy()
    np.testing.assert_allclose(found, recorded, rtol=1e-5, atol=TOLERANCE)
    assert recorded[:atoms, atoms:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("word", "loss"), LOSSES)
def test_losses_and_gradients_are_what_was_recorded(
    recording: Recording, word: str, loss: Loss, dtype: torch.dtype
) -> None:
    told, batch = recording.told["loss"][word], recording.batch(dtype)
    model = recording.model().to(dtype)
    found, true, kind = predicted(model, batch)
    counts = kind.bincount(minlength=9)[1:]
    errors = torch.zeros(9, dtype=dtype).index_add(0, kind, (found - true).detach().abs())[1:]
    assert counts.tolist() == told["type_cnt"]
    torch.testing.assert_close(errors.tolist(), told["type_err"], rtol=1e-5, atol=1e-4)
    value = coupling_loss(found, true, kind, loss)
    assert value.item() == pytest.approx(told["raw_loss"], rel=1e-5, abs=TOLERANCE)
    value.backward()
    norms = {
        published_name(model, name): float(parameter.grad.norm())
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    assert len(norms) == len(list(model.parameters()))
    assert norms == pytest.approx(told["grad_norms"], rel=1e-4, abs=TOLERANCE)


def test_the_written_out_network_is_what_was_recorded(recording: Recording) -> None:
    model = recording.model()
    cut = {"x_bond", "x_bond_dist"}
    inputs = {
        name: array[:, : model.max_pairs] if name in cut else array
        for name, array in recording.inputs.items()
    }
    found = published.forward(recording.words, recording.weights, inputs)
    recorded = recording.outputs["y_pred_valid"]
    np.testing.assert_allclose(found[..., : recorded.shape[2]], recorded, rtol=0, atol=TOLERANCE)
    assert {n: tuple(w.shape) for n, w in recording.weights.items()} == published.shapes(
        recording.words
    )


@pytest.fixture(scope="module")
def smallest() -> Recording:
    """One of the networks without torsions."""
    told, outputs = CASES["gt_modelA_2res"], arrays(HERE / "gt_modelA_2res.npz")
    weights = load_file(HERE / "gt_modelA_2res.weights.safetensors")
    inputs = {name: array[outputs["mol_index"]] for name, array in DATASET.items()}
    return Recording(
        {**told["ctor"], "source_dir": "models/model_A"}, weights, inputs, outputs, told
    )


@pytest.mark.parametrize("kept", [36, 250, 406])
def test_cropped_pairs_and_triplets_change_nothing(smallest: Recording, kept: int) -> None:
    words = {**smallest.words, "max_bond_count": kept}
    model = interop.from_reference("coupling_transformer", words, smallest.weights)
    most = (smallest.inputs["x_triplet"][..., 0] > 0).sum(axis=1).max()
    of_triplets = ("x_triplet", "x_triplet_angle")
    inputs = smallest.inputs | {name: smallest.inputs[name][:, :most] for name in of_triplets}
    found = interop.reference_forward("coupling_transformer", model, inputs)["y_pred"]
    recorded = smallest.outputs["y_pred_valid"]
    assert found.shape == (3, 32, kept)
    np.testing.assert_allclose(found[..., : recorded.shape[2]], recorded, rtol=0, atol=TOLERANCE)


def test_arrays_of_fewer_atoms_keep_the_published_indices_of_such_arrays(
    smallest: Recording,
) -> None:
    """They mean other nodes then; the published code has no padding but that of the arrays."""
    of_atoms = ("x_atom", "x_atom_pos")
    inputs = smallest.inputs | {name: smallest.inputs[name][:, :8] for name in of_atoms}
    words = {**smallest.words, "max_bond_count": 406}
    model = interop.from_reference("coupling_transformer", words, smallest.weights)
    found = interop.reference_forward("coupling_transformer", model, inputs)["y_pred"]
    expected = published.forward(smallest.words, smallest.weights, inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    recorded = smallest.outputs["y_pred_valid"]
    assert np.abs(found[..., : recorded.shape[2]] - recorded).max() > 1e-3
