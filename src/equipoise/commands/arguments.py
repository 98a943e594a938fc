"""The arguments of the commands: flags by argparse, and settings as key=value.

train.py and evaluate.py take Hydra's flags: here are those that work, and why others do not.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from equipoise import __version__
from equipoise.config.hydra import CONF, SEARCH_PATH, parse, quoted, search_path
from equipoise.config.init_from import spelled_out
from equipoise.config.overrides import is_of_hydra
from equipoise.config.refusals import how_to_quote
from equipoise.errors import UserError, nearest

CHOICES = {
    "cfg": ("job", "hydra", "all"),
    "info": ("defaults", "defaults-tree", "plugins", "searchpath"),
}
REFUSED = {
    "--config-name": "train.py always starts from conf/train.yaml; a complete configuration of "
    "your own is a file experiment/<name>.yaml in a folder that --config-dir names",
    "--config-path": "train.py always starts from conf/train.yaml; a folder with choices of your "
    "own is given with --config-dir",
    "--experimental-rerun": "it would unpickle a file and run whatever code it holds; to "
    "repeat a run, use the overrides in its .hydra/overrides.yaml",
}
OF_TRAINING = {
    "multirun": "--multirun", "info": "--info", "shell_completion": "--shell-completion",
    "hydra_help": "--hydra-help",
}  # fmt: skip
ALTERNATIVES = {"cfg": "--cfg", **OF_TRAINING}
NO_VALUE = re.compile(r"argument (?:-\w+/)?(--[\w-]+): ignored explicit argument .*")


class Parser(argparse.ArgumentParser):
    """A parser of a command's arguments that reports mistakes as UserError."""

    def __init__(self, prog: str, description: str | None = None, **settings: Any) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise UserError with argparse's sentence, which the command line prints."""
        if alone := NO_VALUE.fullmatch(message):
            raise UserError(f"{alone[1]} takes no value")
        raise UserError(f"{message}; see {self.prog} --help")

    def parsed(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments, flags and others in any order. Raises UserError for an unknown flag."""
        arguments, rest = self.parse_known_intermixed_args(list(words))
        for word in (word for word in rest if word.startswith("-")):
            hint = nearest(word, self._option_string_actions)
            where = f"; {self.prog} --help shows what there is"
            raise UserError(f"there is no flag {word}{hint or where}")
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return arguments


class Page(argparse.Action):
    """Print a page of our own and end."""

    def __init__(self, *, text: Callable[[], str], **settings: Any) -> None:
        super().__init__(nargs=0, **settings)
        self.text = text

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it."""
        print(self.text())
        parser.exit()


class Once(argparse.Action):
    """Keep the value of a flag, "" where none follows it; raise UserError for a second one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs="?", const="", **settings)

    def __call__(
        self, parser: argparse.ArgumentParser, arguments: argparse.Namespace, value: Any, *_: Any
    ) -> None:
        """Keep it."""
        if getattr(arguments, self.dest) is not None:
            raise UserError(f"{self.option_strings[-1]} is given twice: type it once")
        setattr(arguments, self.dest, value)


class Refused(argparse.Action):
    """Raise UserError with the reason why a flag of Hydra's does not work here."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs="?", **settings)

    def __call__(self, *_: Any) -> NoReturn:
        """Raise."""
        name = self.option_strings[-1]
        raise UserError(f"{name}: {REFUSED[name]}")


def configured(
    program: str, page: Callable[[Sequence[Path]], str], words: Sequence[str]
) -> argparse.Namespace:
    """The arguments of a command that composes a configuration: flags, and `overrides`.

    page: what --help prints, given the folders where choices are looked for. Raises UserError for
    a flag that does not exist or does not work here, or that lacks its value or the flag that it
    requires.
    """
    parser = Parser(program, add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action=Page, text=lambda: f"equipoise {__version__}")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    for flags in (("-m", "--multirun"), ("-r", "--run"), ("-sc", "--shell-completion"),
                  ("--hydra-help",), ("--resolve",)):  # fmt: skip
        parser.add_argument(*flags, action="store_true")
    for flags in (("-c", "--cfg"), ("-p", "--package"), ("-cd", "--config-dir"), ("-i", "--info")):
        parser.add_argument(*flags, action=Once)
    for flags in (("-cn", "--config-name"), ("-cp", "--config-path"), ("--experimental-rerun",)):
        parser.add_argument(*flags, action=Refused)
    arguments = parser.parsed(words)
    if not arguments.help:
        check_flags(arguments)
    words = drawn(spelled_out(arguments.overrides))
    arguments.overrides = with_config_dir(arguments.config_dir, words)
    if arguments.help:
        settings = [line for line in arguments.overrides if line.startswith(f"{SEARCH_PATH}=")]
        print(page([CONF, *search_path(parse(settings))]))
        parser.exit()
    return arguments


def drawn(lines: Sequence[str]) -> list[str]:
    """The overrides, with each `shuffle([...])` replaced by the list that it draws, once."""
    if not any("shuffle" in line for line in lines):
        return list(lines)
    return [
        f"{override.get_key_element()}={override.get_value_element_as_str()}"
        if "shuffle" in line and isinstance(override.value(), list)
        else line
        for line, override in zip(lines, parse(lines), strict=True)
    ]


def check_flags(arguments: argparse.Namespace) -> None:
    """Raise where a flag lacks its value, or the flag that it requires."""
    for name, choices in CHOICES.items():
        value = getattr(arguments, name)
        if value is None or value in choices:
            continue
        hint = "; --cfg job shows the configuration itself" if name == "info" else ""
        flag = f"--{name} {value}" if value and "=" not in value else f"--{name} alone"
        raise UserError(f"{flag} has nothing to show: it takes {', '.join(choices)}{hint}")
    for name in ("package", "resolve"):
        if getattr(arguments, name) not in (None, False) and arguments.cfg is None:
            raise UserError(f"--{name} works only with --cfg job")
    for name in ("package", "config_dir"):
        if getattr(arguments, name) == "":
            raise UserError(f"--{name.replace('_', '-')} needs a value after it")
    ways = [flag for name, flag in ALTERNATIVES.items()
            if name != "hydra_help" and getattr(arguments, name) not in (None, False)]  # fmt: skip
    if len(ways) > 1:
        raise UserError(f"{ways[0]} and {ways[1]} cannot be combined")


def check_evaluation(arguments: argparse.Namespace) -> None:
    """Raise for flags that only train.py takes."""
    for name, flag in OF_TRAINING.items():
        if getattr(arguments, name) not in (None, False):
            raise UserError(f"{flag} is a flag of train.py; evaluate.py evaluates one checkpoint")
    if arguments.cfg not in (None, "job"):
        raise UserError("evaluate.py shows only --cfg job: Hydra does not run it")
    for line, override in zip(arguments.overrides, parse(arguments.overrides), strict=True):
        if is_of_hydra(override) and override.key_or_group != SEARCH_PATH:
            raise UserError(f"{line}: Hydra does not run evaluate.py; set the folder with run_dir")
        if override.is_sweep_override():
            quote = how_to_quote(line)
            raise UserError(f"{line}: evaluate.py evaluates one checkpoint; give one value{quote}")


def with_config_dir(folder: str | None, overrides: Sequence[str]) -> list[str]:
    """The overrides, with the folder of --config-dir added to those searched for choices.

    Raises UserError where there is no such folder.
    """
    if folder is None:
        return list(overrides)
    if not Path(folder).is_dir():
        raise UserError(f"--config-dir: there is no folder {folder}")
    if any(line.startswith("hydra.searchpath=") for line in overrides):
        raise UserError("--config-dir and hydra.searchpath mean the same thing: give one of them")
    return [f"hydra.searchpath=[{quoted(f'file://{Path(folder).absolute()}')}]", *overrides]
