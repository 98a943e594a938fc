"""All tables of the benchmark in one command, under 30 minutes on two cores.

    python -m benchmarks [--output runs/bench] [--only NAME ...] [--seconds 1740] [--cifar FOLDER]
                         [--quick]

Each part runs in a process of its own, whose progress is shown, and leaves its table in the folder;
at the end all of them stand in bench.md and are printed. A part that would begin after the seconds,
or that fails, is named there. `python -m benchmarks.NAME` runs one part alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter


@dataclass(frozen=True)
class Part:
    """A module of this package with the seconds that it may take; pictures: it takes --cifar."""

    name: str
    seconds: float
    pictures: bool = False


PARTS = (
    Part("steps", 480),
    Part("target_accuracy", 660, pictures=True),
    Part("inference", 240, pictures=True),
    Part("step_memory", 60),
    Part("growth", 150),
    Part("shares", 60),
)
LEAST = 20.0
"""Seconds that have to be left for a part to begin."""
GRACE = 120.0
"""Seconds after its limit at which a part is stopped: it ends what it has begun until then."""
RESULT = "bench.md"


def command(part: Part, seconds: float, chosen: argparse.Namespace) -> list[str]:
    words = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{part.name}"]
    words += ["--output", str(chosen.output), "--seconds", f"{seconds:.0f}"]
    if part.pictures and chosen.cifar is not None:
        words += ["--cifar", str(chosen.cifar)]
    return [*words, "--quick"] if chosen.quick else words


def run(part: Part, seconds: float, chosen: argparse.Namespace) -> str:
    """What is to be said of the part beside its table; empty where all went well."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            command(part, seconds, chosen), env=environment, timeout=seconds + GRACE, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{part.name} was stopped after {seconds + GRACE:.0f} seconds."
    return f"{part.name} failed with status {ended.returncode}." if ended.returncode else ""


def machine() -> str:
    threads = "one thread, processor time, sides in turn, medians"
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {version('torch')}; {threads}."


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("runs/bench"))
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS])
    parser.add_argument("--seconds", type=float, default=1740.0, help="limit of all parts together")
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as parquet files in the hub's layout")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the scripts")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    start = perf_counter()
    chapters, troubles = [f"# Benchmark\n\n{machine()}\n"], []
    for part in PARTS:
        if chosen.only and part.name not in chosen.only:
            continue
        left = chosen.seconds - (perf_counter() - start)
        if left < LEAST:
            troubles.append(f"{part.name} was left out after {chosen.seconds:.0f} seconds.")
            continue
        print(f"[{perf_counter() - start:.0f} s] {part.name}", flush=True)
        file = chosen.output / f"{part.name}.md"
        file.unlink(missing_ok=True)
        trouble = run(part, min(part.seconds, left), chosen)
        troubles += [trouble] if trouble else []
        chapters += [file.read_text()] if file.exists() else []
    text = "\n".join([*chapters, *troubles])
    (chosen.output / RESULT).write_text(text + "\n")
    print(f"\n{text}\n\n{chosen.output / RESULT}, {perf_counter() - start:.0f} seconds", flush=True)
    return 1 if any("failed" in trouble for trouble in troubles) else 0


if __name__ == "__main__":
    sys.exit(main())
