"""`python -m equipoise`, also installed as `equipoise`.

`equipoise-train` and `equipoise-evaluate` are two of its commands.
"""

import sys

from equipoise import commands
from equipoise.running.interrupts import leave


def main(*command: str) -> None:
    """Run one command and end the process with its status."""
    leave(commands.exit_status(commands.run, [*command, *sys.argv[1:]]))


def train() -> None:
    """The command `equipoise-train`."""
    main("train")


def evaluate() -> None:
    """The command `equipoise-evaluate`."""
    main("evaluate")


if __name__ == "__main__":
    main()
