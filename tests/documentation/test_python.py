"""The Python of the pages runs as it stands, where the pages say that it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import equipoise
from equipoise import commands, equilibrium
from tests.documentation.pages import PAGES, ROOT, name_of, python_blocks
from tests.documentation.workshop import SHORT
from tests.interop.published_mdeq import configuration, published, small_network

Names = dict[str, Any]
RUN = "runs/digits/mdeq/2024-01-01_12-00-00"
EXPORTS = (
    ["export", RUN, "weights/", "licence=mit"],
    ["export", RUN, "program/", "format=torch_export", "steps=3"],
    ["export", RUN, "onnx/", "format=onnx", "steps=3"],
)
ELSEWHERE = {
    "README.md": "tests/test_documentation.py",
    "docs/own_code.md": "tests/test_documentation.py",
    "docs/add_a_gradient_estimator.md": "tests/test_documentation.py",
    "docs/add_a_model.md": "tests/test_documentation.py",
    "docs/add_a_solver.md": "tests/test_documentation.py",
    "docs/add_a_task.md": "tests/test_documentation.py",
    "docs/privacy.md": "tests/privacy/test_documented_example.py",
    "docs/solvers/common.md": "tests/gpu/test_graphs.py: it needs a GPU",
}


def nothing() -> Names:
    return {}


def published_weights() -> Names:
    weights, images = published(small_network()), torch.randn(2, 3, 32, 32)
    return {"config": configuration(), "state_dict": weights, "images": images}


def a_run() -> Names:
    equipoise.run("task=digits", "model.size=tiny", *SHORT, f"run_dir={RUN}")
    for name in ("three.png", "five.png"):
        Image.new("L", (8, 8), 100).save(name)
    return {}


def exported() -> Names:
    a_run()
    for words in EXPORTS:
        assert commands.exit_status(commands.run, words) == 0
    return {}


BEFORE: dict[str, tuple[Callable[[], Names], bool]] = {
    "docs/compile.md": (lambda: dict(vars(equilibrium)), False),
    "docs/export.md": (exported, True),
    "docs/import_weights.md": (published_weights, False),
    "docs/init_from.md": (lambda: {"nn": nn}, False),
    "docs/kernel_attention.md": (nothing, False),
    "docs/predict.md": (a_run, True),
    "docs/tutorials/from_torchdeq.md": (nothing, False),
}
"""What a page supposes to be there, and whether making it takes long."""


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.slow] * slow) for p, (_, slow) in BEFORE.items()]
)
def test_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = BEFORE[page][0]()
    for block in python_blocks(ROOT / page):
        if "cuda_graph" in block and not torch.cuda.is_available():
            block = "\n".join(line for line in block.splitlines() if line.startswith("from "))
        exec(compile(block, page, "exec"), names)


def test_no_page_with_python_is_left_out() -> None:
    pages = {name_of(page) for page in PAGES if python_blocks(page)}
    assert pages - {"CONTRIBUTING.md"} == {*BEFORE, *ELSEWHERE}
