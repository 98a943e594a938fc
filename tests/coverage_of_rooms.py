"""What share of the lines of each room the tests run: `python -m tests.coverage_of_rooms`.

Reads what `pytest --cov` has left, prints a line for each room, and fails where a room that has a
limit, or the whole package, is below it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from coverage import Coverage

WHOLE = "equipoise"
SOURCE = Path(__file__).parents[1] / "src"
LIMITS = {"equilibrium": 95.0, "privacy": 95.0, WHOLE: 85.0}
"""Least per cent of lines."""


def main() -> None:
    """Print the table; exit status 1 where a limit is not kept."""
    measured = lines()
    for room, (run, all_lines) in sorted(measured.items()):
        limit = f", at least {LIMITS[room]:g} wanted" if room in LIMITS else ""
        print(f"{room:12} {run:6} of {all_lines:6} lines {share(run, all_lines):6.1f} %{limit}")
    low = [room for room, least in LIMITS.items() if share(*measured[room]) < least]
    if low:
        sys.exit(f"too few lines are run in {', '.join(low)}")


def lines() -> dict[str, tuple[int, int]]:
    """Room -> how many of its lines were run, and how many there are; the whole package last."""
    coverage = Coverage()
    coverage.load()
    counts: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for file in coverage.get_data().measured_files():
        if not Path(file).is_relative_to(SOURCE):  # a copy, or blocks of a page, that a test ran
            continue
        _, statements, _, missing, _ = coverage.analysis2(file)
        path = Path(file).parts
        inside = path[len(path) - 1 - path[::-1].index(WHOLE) + 1 :]
        for room in (inside[0] if len(inside) > 1 else "__main__", WHOLE):
            run, all_lines = counts[room]
            counts[room] = run + len(statements) - len(missing), all_lines + len(statements)
    return dict(counts)


def share(run: int, all_lines: int) -> float:
    """Per cent."""
    return 100 * run / all_lines if all_lines else 100.0


if __name__ == "__main__":
    main()
