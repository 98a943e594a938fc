"""The whole command `ensemble` on synthetic submissions: time, peak memory and scores.

    python -m benchmarks.ensemble [submissions] [couplings] [further arguments of the command]

By default 50 submissions of 200,000 couplings, in the competition's shares of types. Their errors
are correlated: each mixes what all get wrong, what its family of methods does, and its own, with
some types it is better at. The command runs in a process of its own, on one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

SHARES = (0.1518, 0.0093, 0.2447, 0.0812, 0.0256, 0.3242, 0.1270, 0.0362)
TYPICAL = (94.9, 47.5, -0.3, -10.3, 3.1, 3.7, 4.8, 1.0)
"""Means of the types in Hz, about those of the competition."""
TYPES = ("1JHC", "1JHN", "2JHC", "2JHH", "2JHN", "3JHC", "3JHH", "3JHN")
FAMILIES = 6
PEAK = """
import resource, sys
from pathlib import Path

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage tells there includes the process that started this one
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
"""
"""Of a process, in MB: to be run there."""
COMMAND = (
    PEAK
    + """
from equipoise.commands import exit_status, run
status = exit_status(run, ["ensemble", *sys.argv[1:]])
print("torch loaded:", "torch" in sys.modules)
print(f"peak {peak():.0f} MB")
sys.exit(status)
"""
)


def write_submissions(folder: Path, submissions: int, couplings: int, seed: int = 0) -> None:
    """Write truth.csv and as many submissions, each in an order of rows of its own."""
    generator = np.random.default_rng(seed)
    kind = generator.choice(len(TYPES), couplings, p=np.divide(SHARES, sum(SHARES)))
    true = np.array(TYPICAL)[kind] + 5 * generator.standard_normal(couplings)
    ids = generator.permutation(couplings) + 4_658_147
    table = {"id": ids, "type": np.array(TYPES)[kind], "scalar_coupling_constant": true}
    csv.write_csv(pa.table(table), folder / "truth.csv")
    shared = generator.laplace(size=couplings)
    families = generator.laplace(size=(FAMILIES, couplings))
    hardness = 0.02 + 0.08 * (kind < 2)  # one-bond couplings are larger, and so are their errors
    (folder / "predictions").mkdir()
    for number in range(submissions):
        own = generator.laplace(size=couplings)
        quality = 1.04**number * generator.uniform(0.85, 1.18, len(TYPES))
        mixed = 0.6 * shared + 0.6 * families[number % FAMILIES] + 0.5 * own
        predicted = true + quality[kind] * hardness * mixed
        order = generator.permutation(couplings)
        columns = {"id": ids[order], "scalar_coupling_constant": predicted[order].round(6)}
        csv.write_csv(pa.table(columns), folder / "predictions" / f"team_{number + 1:03}.csv")


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:3]]
    submissions, couplings = (*sizes, *(50, 200_000)[len(sizes) :])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_submissions(folder, submissions, couplings)
        files = sorted(str(file) for file in (folder / "predictions").glob("*.csv"))
        words = [*files, *sys.argv[3:], "--truth", str(folder / "truth.csv")]
        words = [sys.executable, "-c", COMMAND, *words, "--output", str(folder / "ensemble")]
        start = time.perf_counter()
        subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        seconds = time.perf_counter() - start
        scores = json.loads((folder / "ensemble" / "scores.json").read_text())
    print(f"{seconds:.1f} s for {submissions} submissions of {couplings:,} couplings")
    for name, of in scores["scores"]["held_out"].items():
        print(f"{name:20}{of['mean_log_mae']:9.4f}")


if __name__ == "__main__":
    main()
