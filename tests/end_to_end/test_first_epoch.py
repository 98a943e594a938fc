"""What the default has learnt after its shortest sensible run."""

import json

import pytest

pytestmark = pytest.mark.end_to_end


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_epoch_of_the_default_reads_three_digits_of_four(command, tmp_path, seed):
    done = command("train.py", "trainer.max_epochs=1", f"seed={seed}", "run_dir=run")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["steps"]) == (1, 21)
    assert metrics["test"]["accuracy"] > 0.75
