"""`python -m equipoise <command>`: one module a command, named as it is typed.

A module's docstring is what the list of commands shows; its function `main(arguments)` runs the
command and returns the exit status. A new module in this folder is a new command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import NoReturn

from equipoise import __version__
from equipoise.errors import UserError, nearest

HEAD = """Equipoise: models whose output is an equilibrium z* = f(z*, x).

usage: python -m equipoise <command> [arguments]     (python -m equipoise <command> --help)
"""
FOOT = "In a clone train.py and evaluate.py are the first two: python train.py --help"


class Parser(argparse.ArgumentParser):
    """A parser of a command's arguments that reports what is wrong as all the rest does."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with argparse's sentence, which the command line prints."""
        raise UserError(f"{message}; see {self.prog} --help")


def names() -> list[str]:
    """The commands, as they are typed."""
    return [module.name.replace("_", "-") for module in iter_modules(__path__)]


def summary(name: str) -> str:
    """The line of the list on one command."""
    documentation = _module(name).__doc__ or ""
    return documentation.strip().splitlines()[0]


def page() -> str:
    """The list of all commands."""
    return "\n".join([HEAD, *(f"  {name:<18} {summary(name)}" for name in names()), "", FOOT])


def run(arguments: Sequence[str]) -> int:
    """Run the command that is named first, or list them all; returns the exit status.

    Raises UserError where there is no such command, naming the nearest.
    """
    if not arguments or arguments[0] in ("--help", "-h"):
        print(page())
        return 0
    if arguments[0] == "--version":
        print(f"equipoise {__version__}")
        return 0
    name, *rest = arguments
    if name not in names():
        hint = nearest(name, names()) or f"; commands: {', '.join(names())}"
        raise UserError(f"there is no command '{name}'{hint}")
    status: int = _module(name).main(rest)
    return status


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name.replace('-', '_')}")
