"""Molecules per second from csv files to graphs and from graphs to batches, on one core.

    python -m benchmarks.molecules [copies]

The 312 bundled molecules, as many times over as `copies` says (10), under other names: reading and
checking the files, RDKit's bonds and charges, all features together, writing and opening the Arrow
file, and batches of 48. Times are process CPU time.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from equipoise.data.molecules import nmr_small
from equipoise.data.molecules.batches import MoleculeBatches
from equipoise.data.molecules.features.perception import perceive
from equipoise.data.molecules.graphs import read_stored, write_stored
from equipoise.data.molecules.preparation import CouplingFiles, graphs_in_parts
from equipoise.data.molecules.vocabulary import Vocabulary
from equipoise.data.sampling import BatchIndex

BUNDLED = nmr_small.folder()
MOLECULES, COUPLINGS, BATCH = 312, 6657, 48


def copied(folder: Path, copies: int) -> CouplingFiles:
    """The bundled files, `copies` times over."""
    for name in ("structures.csv", "train.csv"):
        first, *rows = (BUNDLED / name).read_text().splitlines()
        with (folder / name).open("w") as file:
            print(first, file=file)
            for number in range(copies):
                for row in rows:
                    ahead, molecule, behind = row.partition("pyscf")
                    own = str(int(ahead[:-1]) + number * COUPLINGS) + "," if ahead else ""
                    print(f"{own}m{number:05}{molecule}{behind}", file=file)
    return CouplingFiles(folder / "structures.csv", folder / "train.csv")


def timed(name: str, molecules: int, work: Callable[[], Any]) -> Any:
    """Do the work and print how long it took."""
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    print(f"{name:36}{seconds:9.2f}{molecules / seconds:14,.0f}")
    return result


def main() -> None:
    copies = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    torch.set_num_threads(1)
    count = copies * MOLECULES
    perceive(CouplingFiles(BUNDLED / "structures.csv", BUNDLED / "train.csv").read()[0])  # warm up
    with tempfile.TemporaryDirectory() as place:
        files = copied(Path(place), copies)
        print(f"{count:,} molecules{'':18}{'seconds':>16}{'per second':>14}")
        structures, couplings = timed("read and check", count, files.read)
        timed("bonds and charges of RDKit", count, lambda: perceive(structures))
        graphs = timed("all features", count, lambda: graphs_in_parts(structures, couplings))
        stored = Path(place) / "graphs.arrow"
        timed("write", count, lambda: write_stored(graphs, stored))
        again = timed("open", count, lambda: read_stored(stored))
        rows = np.arange(count)
        words = timed("vocabulary", count, lambda: Vocabulary.of(again, rows, rare=10))
        batches = MoleculeBatches(again, rows, words, max_pairs=250)
        parts = torch.randperm(count).split(BATCH)
        timed(
            f"batches of {BATCH}",
            count,
            lambda: [len(batches[BatchIndex(0, part)]) for part in parts],
        )


if __name__ == "__main__":
    main()
