"""MulT against values recorded from the published code in float32.

Positions, masks and the alignment lie beside this file. The models' weights are too large for that:
they are found where the environment variable EQUIPOISE_FIXTURES names their folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from equipoise import interop
from equipoise.interop.mult import published_name
from equipoise.models import MulT
from equipoise.models.mult.attention import View, view
from equipoise.models.mult.encoder import MemoryEncoder, embedded, sinusoids
from equipoise.models.mult.streams import MODALITIES, Alignment, alignment_loss
from tests.interop import published_mult

HERE = Path(__file__).parent
CASES = ("A_unaligned", "C_lonly", "D_aonly_aligned")
DROPOUTS = [word for word in published_mult.WORDS if "dropout" in word]
TOLERANCE = 1e-5
PUBLISHED_CLASSES = "pred_output_position_inclu_blank."


@dataclass(frozen=True)
class Recording:
    """A model's words and weights, what went in and came out, and what is told of it."""

    words: dict[str, Any]
    weights: dict[str, Tensor]
    arrays: dict[str, ndarray]
    told: dict[str, Any]

    def model(self, **changed: Any) -> MulT:
        model = interop.from_reference("mult", {**self.words, **changed}, self.weights)
        assert isinstance(model, MulT)
        return model

    def loss(self, model: MulT) -> Tensor:
        """The published loss, L1, of the recorded samples."""
        streams = {m: torch.as_tensor(self.arrays[f"x_{m[0]}"]) for m in MODALITIES}
        return functional.l1_loss(model(streams).outputs, torch.as_tensor(self.arrays["y"]))


@pytest.fixture(scope="module", params=CASES)
def recording(request: pytest.FixtureRequest) -> Recording:
    root = os.environ.get("EQUIPOISE_FIXTURES")
    if not root:
        pytest.skip("EQUIPOISE_FIXTURES does not name the folder of the whole recordings")
    folder = Path(root) / "mult"
    told = json.loads((folder / "meta.json").read_text())[request.param]
    weights = load_file(folder / f"{request.param}.weights.safetensors")
    return Recording(told["hp"], weights, arrays(folder / f"{request.param}.npz"), told)


def arrays(path: Path) -> dict[str, ndarray]:
    with np.load(path) as file:
        return dict(file)


def assert_same(ours: Tensor | ndarray, recorded: ndarray, name: str = "") -> None:
    np.testing.assert_allclose(np.asarray(ours), recorded, rtol=0, atol=TOLERANCE, err_msg=name)


def packed(model: MulT) -> dict[str, Tensor]:
    """Gradients by published names, the thirds of packed weights joined."""
    joined: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        joined.setdefault(published_name(name).split("[")[0], []).append(parameter.grad)
    return {name: torch.cat(thirds) for name, thirds in joined.items()}


def whole_memory(memory: MemoryEncoder, sequence: Tensor, seen: View) -> Tensor:
    """Every step (B, T, width) of a memory encoder, which itself gives the last one."""
    x = embedded(sequence)
    for layer in memory.layers:
        x = layer.within(x, seen)
    encoded: Tensor = memory.last_norm(x)
    return encoded


def test_outputs_and_all_encoders_are_what_was_recorded(recording: Recording) -> None:
    model = recording.model().eval()
    found: dict[str, Tensor] = {}
    for name, encoder in model.crossmodal.encoders.items():
        key = published_name(f"crossmodal.encoders.{name}.").rstrip(".")
        encoder.register_forward_hook(lambda _, __, out, key=key: found.update({key: out}))
    for target, memory in model.memory.items():
        key = f"trans_{target[0]}_mem"
        memory.register_forward_hook(
            lambda part, given, _, key=key: found.update({key: whole_memory(part, *given[:2])})
        )
    with torch.no_grad():
        assert_same(recording.loss(model), recording.arrays["loss"])
    recorded = {n[4:]: a for n, a in recording.arrays.items() if n.startswith("cap.")}
    assert set(found) == set(recorded)
    for name, array in recorded.items():
        assert_same(found[name].transpose(0, 1), array, name)
    outputs = interop.reference_forward("mult", model, recording.arrays)
    for name in ("out", "last_hs"):
        assert outputs[name].dtype == np.float32
        assert_same(outputs[name], recording.arrays[name], name)


def test_gradients_are_what_was_recorded(recording: Recording) -> None:
    model = recording.model().eval()
    recording.loss(model).backward()
    gradients = packed(model)
    unread = recording.told["no_grad"]
    norms = {n: norm for n, norm in recording.told["grad_norms"].items() if n not in unread}
    assert set(gradients) == set(norms)
    for name, norm in norms.items():
        assert abs(gradients[name].norm() - norm) <= TOLERANCE * max(1, norm), name
    for name in (name for name in recording.arrays if name.startswith("grad.")):
        gradient = gradients[name.removeprefix("grad.")]
        assert_same(gradient.view(recording.arrays[name].shape), recording.arrays[name], name)


def test_five_steps_of_training_are_what_was_recorded(recording: Recording) -> None:
    model = recording.model(**dict.fromkeys(DROPOUTS, 0.0)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for recorded in recording.told["train5_losses_dropout0_adam1e-3_clip0.8"]:
        loss = recording.loss(model)
        assert abs(loss.item() - recorded) <= TOLERANCE
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.8)
        optimizer.step()


def test_the_written_out_network_is_what_was_recorded(recording: Recording) -> None:
    assert {n: tuple(w.shape) for n, w in recording.weights.items()} == published_mult.shapes(
        recording.words
    )
    found = published_mult.forward(recording.words, recording.weights, recording.arrays)
    for name, tensor in found.items():
        assert_same(tensor, recording.arrays[name], name)


@pytest.mark.parametrize(("rows", "width"), [(40, 30), (13, 7)])
def test_positions_are_what_was_recorded(rows: int, width: int) -> None:
    recorded = arrays(HERE / "positions_masks.npz")[f"table_{rows}x{width}"]
    assert not recorded[0].any()
    assert_same(sinusoids(rows - 1, width, torch.zeros(())), recorded[1:])
    assert_same(published_mult.table(rows, width), recorded)


def test_padding_has_no_position_as_was_recorded() -> None:
    recorded = arrays(HERE / "positions_masks.npz")
    first = torch.as_tensor(recorded["inp"])
    np.testing.assert_array_equal(published_mult.positions(first), recorded["pos"])
    sequence = torch.cat((first[..., None], torch.ones(*first.shape, 7)), dim=2)
    assert_same(embedded(sequence) - sequence * 8**0.5, recorded["emb8"])


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (4, 7), (7, 4), (1, 3)])
def test_masks_are_what_was_recorded(queries: int, keys: int) -> None:
    recorded = arrays(HERE / "positions_masks.npz")[f"mask_{queries}_{keys}"]
    seen = view(queries, keys, causal=True, present=None, like=torch.zeros(()))
    lower = torch.ones(queries, keys, dtype=torch.bool).tril()
    visible = lower if seen.triangular else seen.visible
    np.testing.assert_array_equal(visible, recorded == 0)
    written = published_mult.visible(queries, keys, True)
    assert [list(np.flatnonzero(row == 0)) for row in recorded] == written


def test_the_alignment_is_what_was_recorded() -> None:
    recorded = arrays(HERE / "ctc.npz")
    alignment = Alignment(6, 5)
    for name, parameter in alignment.named_parameters():
        published = recorded.pop(name.replace("classes.", PUBLISHED_CLASSES))
        parameter.data.copy_(torch.as_tensor(published))
    assert not any(name.startswith(PUBLISHED_CLASSES) for name in recorded)
    with torch.no_grad():
        aligned, scores = alignment(torch.as_tensor(recorded["x"]))
    assert_same(aligned, recorded["aligned"])
    assert_same(scores, recorded["logits"])
    losses = recorded["torch_ctc_per_sample"]
    for sample, loss in enumerate(losses):
        assert_same(alignment_loss(scores[sample : sample + 1]), loss)
    assert_same(alignment_loss(scores), losses.sum())
