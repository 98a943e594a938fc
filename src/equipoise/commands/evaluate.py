"""Evaluate a checkpoint: the same as `python evaluate.py`."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise import command_line


def main(arguments: Sequence[str]) -> int:
    """Run `evaluate.py` with the arguments; returns the exit status."""
    return command_line.evaluation(arguments)
