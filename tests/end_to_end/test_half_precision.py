"""bfloat16 autocast: every estimator trains the digits as well as in float32."""

from __future__ import annotations

from pathlib import Path

import pytest

import equipoise
from equipoise.config.compose import CONF

ESTIMATORS = sorted(f.stem for f in (CONF / "gradient").glob("*.yaml") if f.stem != "none")
QUIET = ["callbacks.report=null", "callbacks.progress=null", "trainer.enable_progress_bar=false"]


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize("gradient", ESTIMATORS)
def test_training_in_half_precision_is_as_good(gradient: str, tmp_path: Path) -> None:
    def accuracy(precision: str) -> float:
        words = [*QUIET, f"gradient={gradient}", "strategy=cpu", f"trainer.precision={precision}"]
        metrics = equipoise.run(*words, f"run_dir={tmp_path}/{precision}")
        return float(metrics["test"]["accuracy"])

    assert accuracy("bf16-mixed") > accuracy("32-true") - 0.015
