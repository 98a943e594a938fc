"""Two processes with half of the batch each take the steps of one process with all of it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import equipoise
from tests.end_to_end.conftest import SMALL

STEPS = 20
BRIEF = (
    "trainer.log_every_n_steps=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
    "callbacks.report=null", "callbacks.progress=null", "trainer.enable_progress_bar=false",
    "trainer.sync_batchnorm=true", f"trainer.max_steps={STEPS}", "trainer.max_epochs=20",
)  # fmt: skip
FINE = ("trainer.precision=64-true",)  # in float32 a rounding error grows tenfold within steps
DIGITS = ("task=digits", *SMALL, *FINE)
TEXT = ("model.width=16", "model.heads=2", "model.inner_width=16", *FINE)
# The adjoint solve ends where the slowest sample of its process has: only a whole budget is alike.
EXACT = ("gradient=exact", "gradient.solver.max_steps=12", "gradient.solver.tol=0")
FAMILIES = {
    "mdeq phantom": (*DIGITS, "gradient=phantom"),
    "mdeq exact": (*DIGITS, *EXACT),
    "deq_transformer": ("task=python_docs", *TEXT, "model=deq_transformer", *EXACT),
    "kernel_transformer": ("task=number_words", *TEXT, "model=kernel_transformer",
                           "model.layers=1"),
    "mult": ("task=trimodal", "model=mult", "model.width=8", "model.heads=2", "model.layers=1",
             "model.attention_dropout=[0,0,0]", "model.relu_dropout=0", "model.residual_dropout=0",
             "model.embedding_dropout=0", *FINE),
    "barlow": ("task=ssl_digits", "model=barlow", "optimizer.lr=1e-4"),
    "coupling_transformer": ("task=nmr_small", "model.width=8", "model.heads=2", "model.layers=2",
                             "model.inner=16", "model.head_width=4", "model.feature_width=3",
                             "model.dropout=0", "model.head_dropout=0", *FINE),
    "segmentation": ("task=digit_scenes", *SMALL, *FINE),
}  # fmt: skip
DEFAULT = ("mdeq exact",)

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]


def losses(folder: Path) -> list[float]:
    """The loss of every step."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def marked(family: str) -> Any:
    """Most families are evidence for the slow suite."""
    return pytest.param(family, marks=() if family in DEFAULT else pytest.mark.slow)


@pytest.mark.parametrize("family", [marked(family) for family in FAMILIES])
def test_the_curve_is_that_of_one_process(family: str, tmp_path: Path) -> None:
    words = [*FAMILIES[family], *BRIEF]
    one, two = (tmp_path / name for name in ("one", "two"))
    equipoise.run(*words, "strategy=cpu", "task.batch_size=16", f"run_dir={one}")
    equipoise.run(*words, "strategy=ddp_cpu", "task.batch_size=8", f"run_dir={two}")
    assert len(losses(one)) == STEPS
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
