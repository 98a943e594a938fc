"""Tell where the time of a training step goes, in a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.commands.arguments import Parser, drawn, with_config_dir
from equipoise.commands.train import check_single
from equipoise.config.init_from import spelled_out
from equipoise.errors import UserError
from equipoise.running import folders
from equipoise.running.api import checked, prepared, resumed_from, wandb_run
from equipoise.running.folders import check_no_folder_of_hydra, run_directory
from equipoise.running.messages import refusals_of_run

if TYPE_CHECKING:
    from equipoise.config.compose import Composition

PROGRAM = "python -m equipoise profile"
SETTINGS = """settings of the command itself, beside all those of train.py:
  steps=10    steps that are timed; as many again run without timers, in turn with them
  warm_up=2   steps before them

  python -m equipoise profile task=digits
  python -m equipoise profile task=digits solver=broyden gradient=exact steps=20
"""


@dataclass
class Request:
    """The settings of the command itself."""

    steps: int = 10
    warm_up: int = 2


def main(words: Sequence[str]) -> int:
    """Train for some steps and print the table; returns 0. Raises UserError."""
    request, overrides = read(words)
    composition = checked(overrides)
    with folders.held(run_directory(composition, "profile")) as directory:
        carry_out(composition, directory, request)
    return 0


def read(words: Sequence[str]) -> tuple[Request, list[str]]:
    """The command's own settings, and the overrides of the run to profile.

    Raises UserError for an own setting that is not a valid number, and for more than one run.
    """
    parser = _parser()
    arguments = parser.parsed(words)
    request, overrides = Request(), list[str]()
    for word in arguments.overrides:
        key, _, value = word.partition("=")
        if key in ("steps", "warm_up"):
            setattr(request, key, whole_number(key, value, least=1 if key == "steps" else 0))
        else:
            overrides.append(word)
    overrides = with_config_dir(arguments.config_dir, drawn(spelled_out(overrides)))
    check_single(overrides)
    check_no_folder_of_hydra(overrides)
    return request, overrides


def whole_number(key: str, value: str, least: int) -> int:
    """The value of a setting; raises UserError unless it is an integer, `least` or more."""
    if not value.isdecimal() or int(value) < least:
        raise UserError(f"profile: {key}={value} must be a whole number, {least} or more")
    return int(value)


@wandb_run()
def carry_out(composition: Composition, directory: Path, request: Request) -> None:
    """Profile one composition in `directory`, and print what was found."""
    config = composition.config
    built = prepared(composition, directory, resumed_from(composition))
    from equipoise.report.step_parts import StepTable
    from equipoise.running import run as training
    from equipoise.running.build import open_folder

    open_folder(config, built)
    with refusals_of_run(built):
        times = training.time_steps(built, request.steps, request.warm_up, config.ckpt_path)
    table = StepTable.of(times)
    print("\n".join(table.lines()))
    for file in table.write(directory):
        print(file)


def _parser() -> Parser:
    from argparse import RawDescriptionHelpFormatter

    parser = Parser(
        PROGRAM, __doc__, usage="%(prog)s [key=value ...] [steps=10] [warm_up=2]",
        epilog=SETTINGS, formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as those of train.py")
    parser.add_argument("-cd", "--config-dir", help="a folder with choices of your own")
    return parser
