"""The algebra of a window: by elimination as by the library, and by the kernels for a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from equipoise.equilibrium.small_systems import eliminated, solved


@pytest.mark.parametrize("size", [1, 3, 7])
def test_elimination_agrees_with_the_library(size: int) -> None:
    matrix, right = torch.randn(6, size, size).double(), torch.randn(6, size).double()
    matrix[0] = torch.flip(torch.eye(size).double(), [0])  # zeros on the diagonal
    torch.testing.assert_close(eliminated(matrix, right), solved(matrix, right))


def test_a_singular_system_is_told_by_what_is_not_finite() -> None:
    matrix, right = torch.ones(1, 3, 3).double(), torch.tensor([[1.0, 0.0, 0.0]]).double()
    for solve in (eliminated, solved):
        assert not bool(torch.isfinite(solve(matrix, right)).all())


@pytest.mark.slow
def test_the_kernels_agree_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.equilibrium.window_checks"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
