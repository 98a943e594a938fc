"""The programs of examples/ run, in a shortened form."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTER_STEP = re.compile(r"outer step \d+ .*validation ([\d.]+)")


def test_the_weight_decay_that_is_found_lowers_the_validation_loss() -> None:
    script = ROOT / "examples" / "weight_decay_of_mdeq.py"
    words = "--images 60 --training-steps 3 --outer-steps 3 --evaluations 100"
    command = [sys.executable, str(script), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    first, *_, last = (float(loss) for loss in OUTER_STEP.findall(done.stdout))
    assert last < first
    assert done.stdout.count("\ndecay ") == 5
