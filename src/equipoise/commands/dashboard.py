"""Create a W&B workspace for a project: panels of loss, solver and gradient."""

from __future__ import annotations

import json
import re
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from equipoise.commands.arguments import Parser
from equipoise.errors import UserError, nearest
from equipoise.report.whole import write_whole
from equipoise.running.loggers import has_account

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

SETTINGS = """the settings:
  name=Equipoise         what the workspace is called
  output=<file>.json     write its specification to a file, without a network or an account

The project is that of the runs, as <user or team>/<project>; logger.wandb.project is equipoise by
default. The workspace is a new one each time, and the others of the project stay.
  python -m equipoise dashboard somebody/equipoise
"""
PROJECT = re.compile(r"[\w.-]+/[\w. -]+")


class Request(NamedTuple):
    """The project and the settings on the command line."""

    entity: str
    project: str
    name: str = "Equipoise"
    output: Path | None = None


def main(words: Sequence[str]) -> int:
    """Create the workspace, or write it to a file, and print where it is; returns 0.

    Raises UserError.
    """
    parser = Parser(
        "python -m equipoise dashboard", __doc__, epilog=SETTINGS,
        usage="%(prog)s <entity>/<project> [setting=value ...]",
        formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="<entity>/<project>", help="see below")
    request = parse(parser.parsed(words).words)
    print(created(request) if request.output is None else written(request, request.output))
    return 0


def parse(words: Sequence[str]) -> Request:
    """The project and the settings. Raises UserError for anything else."""
    settings = [word for word in words if "=" in word]
    projects = [word for word in words if "=" not in word]
    if len(projects) != 1 or not PROJECT.fullmatch(projects[0]):
        raise UserError(
            "dashboard needs the project of the runs, as <user or team>/<project>: "
            "python -m equipoise dashboard somebody/equipoise"
        )
    entity, _, project = projects[0].partition("/")
    request = Request(entity, project)
    for word in settings:
        key, _, value = word.partition("=")
        if key == "name" and value:
            request = request._replace(name=value)
        elif key == "output" and value:
            request = request._replace(output=Path(value))
        else:
            hint = nearest(key, ("name", "output"))
            raise UserError(f"dashboard takes no '{word}'{hint or '; see --help'}")
    return request


def written(request: Request, file: Path) -> str:
    """Write the specification to a file; returns what to print. Raises UserError."""
    from equipoise.report.dashboard import specification

    text = json.dumps(specification(_workspace(request)), indent=2)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, f"{text}\n")
    except OSError as error:
        raise UserError(f"output={file} cannot be written: {error.strerror or error}") from error
    return f"specification: {file}"


def created(request: Request) -> str:
    """Create the workspace at W&B; returns what to print. Raises UserError where that fails."""
    shown = _workspace(request)
    if not has_account():
        raise UserError(
            "dashboard needs an account of W&B: run `wandb login`, or write it to a file with "
            "output=dashboard.json"
        )
    from wandb.errors import CommError, UsageError

    try:
        saved = shown.save()
    except (CommError, UsageError, OSError, ValueError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"W&B did not create the dashboard ({line}): check the network, `wandb login` and the "
            f"project {request.entity}/{request.project}, or write it to a file with output="
        ) from error
    return f"dashboard: {saved.url}"


def _workspace(request: Request) -> Workspace:
    from equipoise.report.dashboard import workspace

    try:
        return workspace(request.entity, request.project, request.name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"dashboard needs the package {(error.name or '').replace('_', '-')}: "
            "pip install 'equipoise[dashboard]'"
        ) from error
