"""Tests that need a GPU: each is skipped with a sentence where there is none."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def gpu() -> None:
    """Skip everything in this folder on a machine without CUDA."""
    if not torch.cuda.is_available():
        pytest.skip("this test needs an NVIDIA GPU, and this machine has none that torch can use")
