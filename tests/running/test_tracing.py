"""Written programs give what the network gives with the same budget, for any number of samples."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from equipoise.equilibrium import Anderson, Broyden, FixedPoint, NewtonKrylov, Solver
from equipoise.equilibrium.fixed_budget import with_fixed_budget
from equipoise.errors import UserError
from equipoise.running.programs import Program
from equipoise.running.tracing import difference, traced, write_onnx, write_torch_export
from tests.equilibrium.test_fixed_budget import Tanh, samples

SOLVERS = {
    "fixed_point": FixedPoint(damping=0.7),
    "anderson": Anderson(memory=3, mixing=0.8),
    "broyden": Broyden(memory=2),
    "newton_krylov": NewtonKrylov(krylov_steps=2),
}


class Single(nn.Module):
    """The tuple of one output that a program gives."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.network(x),)


def program(solver: Solver, steps: int, width: int = 6) -> Program:
    module = Single(with_fixed_budget(Tanh(solver, width), steps))
    return Program(module, {"x": samples(2, width)}, ("z",), {})


@settings(deadline=None, max_examples=4)
@given(name=st.sampled_from(sorted(SOLVERS)), steps=st.integers(1, 7), width=st.integers(1, 9))
def test_torch_export_has_the_arithmetic_of_the_solver(name: str, steps: int, width: int) -> None:
    made = program(SOLVERS[name], steps, width)
    with tempfile.TemporaryDirectory() as folder:
        run = write_torch_export(made, Path(folder) / "model.pt2")
    for count in (1, 2, 7):
        inputs = {"x": samples(count, width)}
        assert torch.allclose(run(inputs)[0], made.expected(inputs)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "name",
    [
        "fixed_point",
        "anderson",
        pytest.param("broyden", marks=pytest.mark.slow),
        pytest.param("newton_krylov", marks=pytest.mark.slow),
    ],
)
def test_onnxruntime_gives_the_same(name: str, tmp_path: Path) -> None:
    made = program(SOLVERS[name], 5)
    run = write_onnx(made, tmp_path / "model.onnx")
    assert difference(made, run) < 1e-7  # numbers in the text of an operator are float32 there
    inputs = {"x": samples(1)}
    assert torch.allclose(run(inputs)[0], made.expected(inputs)[0], atol=1e-7, rtol=0)


def test_a_difference_is_seen(tmp_path: Path) -> None:
    run = write_torch_export(program(SOLVERS["anderson"], 2), tmp_path / "model.pt2")
    assert difference(program(SOLVERS["anderson"], 3), run) > 1e-3


class Branching(nn.Module):
    """What no tracer can follow."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x * 2 if x.sum() > 0 else x,)


def test_what_cannot_be_traced_is_told_with_the_solvers_that_can() -> None:
    made = Program(Branching(), {"x": samples(2)}, ("x",), {})
    with pytest.raises(UserError, match="anderson, broyden, fixed_point, newton_krylov"):
        traced(made)


class Counting(nn.Module):
    """What a tracer takes for a number."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x + x.new_ones(len(x), 1),)


def test_a_network_that_fixes_the_number_of_samples_is_told() -> None:
    with pytest.raises(UserError, match=r"write x.shape\[0\] where it has len\(x\)"):
        traced(Program(Counting(), {"x": samples(2)}, ("x",), {}))


class Eigenvalues(nn.Module):
    """What ONNX has no operator for."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (torch.linalg.eigvalsh(x.unsqueeze(2) * x.unsqueeze(1)),)


def test_what_onnx_has_not_is_told(tmp_path: Path) -> None:
    made = Program(Eigenvalues(), {"x": samples(2)}, ("x",), {})
    with pytest.raises(
        UserError, match=r"no counterpart in ONNX .*: export it with format=torch_e"
    ):
        write_onnx(made, tmp_path / "model.onnx")


def test_onnx_without_its_packages_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime: pip install 'equipoise\[export\]'"):
        write_onnx(program(SOLVERS["anderson"], 2), tmp_path / "model.onnx")
