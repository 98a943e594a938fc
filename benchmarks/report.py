"""What a benchmark prints, and keeps in a file as it goes: a part cut short leaves a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter


class Report:
    """Markdown on the screen and in a file, a line at a time."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._latest = ""
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")

    def line(self, text: str = "") -> None:
        """One line; a second empty one in a row is left out."""
        if not text and not self._latest:
            return
        self._latest = text
        print(text, flush=True)
        if self.file is not None:
            with self.file.open("a") as target:
                target.write(text + "\n")

    def heading(self, text: str) -> None:
        self.sentence(f"### {text}")

    def columns(self, *names: str) -> None:
        """Begin a table."""
        self.line()
        self.row(*names)
        self.line("|---" * len(names) + "|")

    def row(self, *values: object) -> None:
        self.line("| " + " | ".join(map(_shown, values)) + " |")

    def sentence(self, text: str) -> None:
        """A paragraph of its own."""
        self.line()
        self.line(text)
        self.line()


def _shown(value: object) -> str:
    """Three digits of a number that is not whole; nothing of None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def first_line(error: Exception) -> str:
    """What an error says, without what follows."""
    return (str(error).strip().splitlines() or [""])[0]


@dataclass
class TimeLimit:
    """Seconds that a part may take; what would start later is left out, and counted."""

    seconds: float
    left_out: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.start = perf_counter()

    @property
    def left(self) -> float:
        return self.seconds - (perf_counter() - self.start)

    def allows(self, name: str, needed: float = 0.0) -> bool:
        """Whether `needed` seconds are left; notes the name where they are not."""
        if self.left > needed:
            return True
        self.left_out = [*self.left_out, name]
        return False

    def tell(self, report: Report) -> None:
        """Say what was left out."""
        if self.left_out:
            names = "; ".join(self.left_out)
            report.sentence(f"Left out after {self.seconds:.0f} seconds: {names}.")


def arguments(description: str | None, seconds: float) -> argparse.ArgumentParser:
    """The arguments that every part takes; `seconds` is the default of its time limit."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, help="folder for the tables; none: print them alone")
    parser.add_argument("--seconds", type=float, default=seconds, help="start nothing after them")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    return parser
