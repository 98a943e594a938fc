"""`python -m equipoise`, also installed as `equipoise`."""

import sys

from equipoise import commands
from equipoise.command_line import answered
from equipoise.running.interrupts import leave


def main() -> None:
    """Run one command and end the process with its status."""
    leave(answered(lambda: commands.run(sys.argv[1:])))


if __name__ == "__main__":
    main()
