"""What a command has read of its words, written down in place of what takes long."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tests.end_to_end.mutated_lines import CommandLine

MOST_SHOWN = 3


def request_file(folder: Path) -> Path:
    """Where the settings that a command read in `folder` are written: beside it."""
    return folder.with_name(f"{folder.name}.request.json")


def arrange(line: CommandLine) -> None:
    """In the process that is about to run a line: let it tell what it has read.

    A multirun prints its jobs and the configurations of the first ones in place of running them; a
    command with settings writes them beside the line's output.
    """
    sys.stdin = open("/dev/null")  # noqa: SIM115 - no command waits for a text
    if "-m" in line.flags:
        from equipoise.commands import multirun, search

        multirun.carry_out = _show_jobs  # type: ignore[assignment]
        search.carry_out = _show_jobs  # type: ignore[assignment]
    from equipoise.commands import export, generate, predict, push, stored_model, translate

    read = stored_model.read_settings

    def noting(*arguments: Any, **others: Any) -> Any:
        request = read(*arguments, **others)
        request_file(Path.cwd()).write_text(json.dumps(dataclasses.asdict(request)))
        return request

    for module in (export, generate, predict, push, translate):
        module.read_settings = noting  # type: ignore[attr-defined]


def _show_jobs(typed: Sequence[str], overrides: Sequence[str], *_: Any) -> int:
    """Print each job's words as JSON, a line a job, then the first ones' configurations."""
    from equipoise.commands.jobs import jobs
    from equipoise.running.api import checked

    every = jobs(overrides)
    print(json.dumps(every))
    for job in every[:MOST_SHOWN]:
        print("---")
        print(OmegaConf.to_yaml(checked(job).config))
    return 0
