"""What goes into a program and comes out of it, by the kind of task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import equipoise
from equipoise.config.compose import compose, plain
from equipoise.errors import UserError
from equipoise.running.build import complete_from_data
from equipoise.running.programs import Program, program_of, solver_of
from equipoise.running.tracing import difference, write_onnx, write_torch_export

KINDS = {
    "classification": ["model=mdeq", "task=digits", "model.size=tiny"],
    "explicit": ["model=resnet", "task=digits", "model.size=tiny"],
    "segmentation": ["task=digit_scenes", "model.size=tiny"],
    "both": ["task=digits_and_scenes", "model.size=tiny"],
    "encoder": ["task=ssl_digits", "encoder=mdeq", "model.encoder.size=tiny"],
    "text": ["task=python_docs", "model=deq_transformer", "model.size=tiny"],
    "kernel": ["task=python_docs", "model=kernel_transformer", "model.size=tiny"],
    "trellis": ["task=python_docs", "model=deq_trellisnet", "model.size=tiny"],
    "streams": ["task=trimodal", "model.equilibrium=true", "model.width=10", "model.heads=2"],
}
SHAPES = {
    "classification": ({"image": (2, 1, 8, 8)}, {"logits": (2, 10)}),
    "explicit": ({"image": (2, 1, 8, 8)}, {"logits": (2, 10)}),
    "segmentation": ({"image": (2, 1, 32, 32)}, {"mask_logits": (2, 11, 16, 16)}),
    "both": (
        {"image": (2, 1, 32, 32)}, {"logits": (2, 10), "mask_logits": (2, 11, 16, 16)}
    ),
    "encoder": ({"image": (2, 1, 8, 8)}, {"features": (2, None)}),
    "text": ({"tokens": (2, 8)}, {"log_probabilities": (2, 8, None)}),
    "kernel": ({"tokens": (2, 8)}, {"log_probabilities": (2, 8, None)}),
    "trellis": ({"tokens": (2, 8)}, {"log_probabilities": (2, 8, None)}),
    "streams": (
        dict.fromkeys(("language", "audio", "vision"), (2, None, None)), {"scores": (2, 1)}
    ),
}  # fmt: skip
LAYERLESS = ("explicit", "kernel")


def made(kind: str, steps: int = 2) -> tuple[Program, Any]:
    words = [*KINDS[kind], *(["task.segment_length=8"] if "python_docs" in KINDS[kind][0] else [])]
    words += [] if kind in LAYERLESS else ["solver=fixed_point"]
    composition = compose(words)
    if kind in ("text", "kernel", "trellis", "streams"):
        complete_from_data(composition)
    config = plain(composition.config, resolve=True)
    network = equipoise.build(*words)
    return program_of(network, config, config["task"]["about"]["wants"], steps), network


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_task_has_its_inputs_and_outputs(kind: str) -> None:
    program, _ = made(kind)
    inputs, outputs = SHAPES[kind]
    assert list(program.inputs) == list(inputs)
    assert list(program.outputs) == list(outputs)
    given = [*program.inputs.values(), *program.expected(program.inputs)]
    for tensor, shape in zip(given, [*inputs.values(), *outputs.values()], strict=True):
        assert len(tensor.shape) == len(shape)
        for size, expected in zip(tensor.shape, shape, strict=True):
            assert expected in (size, None)
    assert set(program.evaluations.values()) == (set() if kind in LAYERLESS else {2})


@torch.no_grad()
def test_both_heads_read_one_equilibrium() -> None:
    program, network = made("both", steps=30)
    logits, mask_logits = program.expected(program.inputs)
    layer = network.eval().equilibrium
    layer.solver = layer.solver.__class__(max_steps=30, tol=0.0)
    state = network.state(program.inputs["image"])
    assert torch.equal(logits, network.readout(state, "logits"))
    assert torch.equal(mask_logits, network.readout(state, "mask_logits"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_traced_for_any_number_of_samples(kind: str, tmp_path: Path) -> None:
    program, _ = made(kind)
    for write, file in ((write_torch_export, "model.pt2"), (write_onnx, "model.onnx")):
        assert difference(program, write(program, tmp_path / file)) < 1e-5


@pytest.mark.parametrize("wants", ["translation_logits", "couplings", "range_estimate", ""])
def test_what_is_no_program_of_one_call_is_told(wants: str) -> None:
    with pytest.raises(UserError, match="export it with format=safetensors"):
        program_of(torch.nn.Linear(1, 1), {}, wants, None)


def test_the_solver_of_a_network_is_named() -> None:
    network = equipoise.build("solver=broyden", "solver.tol=0.1", "model.size=tiny")
    assert solver_of(network) == {"name": "broyden", "tol": 0.1, "max_steps": 30}
    assert solver_of(equipoise.build("gradient=unrolled", "model.size=tiny")) is None
    assert solver_of(torch.nn.Linear(1, 1)) is None
