"""Train a model, as `python train.py` does, from wherever this is installed."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise import command_line


def main(arguments: Sequence[str]) -> int:
    """Run `train.py` with the arguments; returns the exit status."""
    return command_line.train(arguments)
