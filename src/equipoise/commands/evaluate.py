"""Evaluate a checkpoint: the same as `python evaluate.py`."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise.commands.arguments import check_evaluation, configured
from equipoise.commands.showing import show
from equipoise.config import help_page
from equipoise.running.api import evaluate, evaluation_of, rehearse


def main(words: Sequence[str]) -> int:
    """Evaluate a checkpoint, or show its settings; returns 0. Raises UserError."""
    arguments = configured("evaluate.py", lambda _: help_page.EVALUATE, words)
    check_evaluation(arguments)
    if arguments.cfg:
        composition = evaluation_of(arguments.overrides)
        rehearse(composition)
        return show(composition.config, arguments.package, arguments.resolve)
    evaluate(*arguments.overrides)
    return 0
