"""The bundled recipes of the sequence models learn what they are for, in a part of their steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.running.api import run

QUIET = ("logger=none", "strategy=cpu")


@pytest.mark.slow
def test_copying_over_a_delay_needs_memory_and_is_learnt(tmp_path: Path) -> None:
    metrics = run(
        "task=copy_memory", "task.length=100", "task.train_size=4000", "task.val_size=32",
        "task.test_size=160", f"run_dir={tmp_path / 'run'}", *QUIET,
    )  # fmt: skip
    assert metrics["test"]["loss"] < metrics["details"]["memoryless_loss"] / 10
    assert metrics["test"]["accuracy"] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["deq_transformer", "transformer", "deq_trellisnet", "trellisnet"]
)
def test_characters_are_predicted_from_those_before(tmp_path: Path, model: str) -> None:
    metrics = run(
        "task=python_docs", f"model={model}", "trainer.max_epochs=-1", "trainer.max_steps=200",
        f"run_dir={tmp_path / 'run'}", *QUIET,
    )  # fmt: skip
    assert metrics["test"]["bits_per_character"] < 3.3
    assert metrics["details"]["unigram_bits_per_character"] > 4.4
