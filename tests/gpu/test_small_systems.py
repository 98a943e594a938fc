"""Kernels for small systems on the device, alone and while a graph is captured."""

from __future__ import annotations

import pytest
import torch

from equipoise.equilibrium.small_systems import solved, window_weights

pytestmark = pytest.mark.gpu
pytest.importorskip("triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_kernels_agree_with_the_library(dtype: torch.dtype) -> None:
    from tests.equilibrium.window_checks import check_chain, check_systems, check_window

    check_systems("cuda", dtype)
    check_window("cuda", dtype)
    check_chain("cuda", dtype)


def test_a_solve_is_one_launch_that_waits_for_nothing() -> None:
    matrix = torch.randn(8, 5, 5, device="cuda", dtype=torch.float64)
    right = torch.randn(8, 5, device="cuda", dtype=torch.float64)
    solved(matrix, right)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        solved(matrix, right)
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if "solve" in event.name]
    assert len(kernels) == 1


def test_a_captured_solve_follows_its_inputs() -> None:
    matrix = torch.eye(4, device="cuda", dtype=torch.float64).repeat(3, 1, 1)
    right = torch.ones(3, 4, device="cuda", dtype=torch.float64)
    solved(matrix, right)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = solved(matrix, right)
    matrix.mul_(2.0)
    graph.replay()
    torch.testing.assert_close(found, 0.5 * right)


def test_a_window_in_half_precision_gives_weights_of_it() -> None:
    products = torch.ones(2, 1, device="cuda", dtype=torch.bfloat16)
    cosines = torch.zeros(2, 3, 3, device="cuda", dtype=torch.float64)
    norms = torch.zeros(2, 3, device="cuda", dtype=torch.float64)
    newest = torch.ones(1, device="cuda", dtype=torch.float64)
    weights = window_weights(products, cosines, norms, 0, 1e-8, newest)
    assert weights.dtype == torch.bfloat16
    torch.testing.assert_close(weights, torch.ones_like(products))
