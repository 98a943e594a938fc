"""Starts commands out of a process that has imported everything, so that each takes seconds.

`python -m tests.faults.server` reads one job a line from stdin, as JSON: fault, program, words,
folder, out, errors. It forks a process for it in a session of its own, and answers with two lines:
the number of the process, and how it has ended. In the new process the fault is injected, then the
command runs as train.py and evaluate.py run it, down to the end of the interpreter.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from typing import Any

PATIENCE = 280
"""Seconds after which a command tells where it stands."""


def jobs() -> dict[str, Any]:
    """Fork for every line; returns in the new process, with its job."""
    for line in iter(sys.stdin.readline, ""):
        process = os.fork()
        if process == 0:
            return dict(json.loads(line))
        print(process, flush=True)
        _, ended = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)
    sys.exit(0)


def settle(job: dict[str, Any]) -> None:
    """Make this process one of its own: session, streams, folder, signals."""
    os.setsid()
    for number, path in enumerate((os.devnull, job["out"], job["errors"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - of the whole process
    os.chdir(job["folder"])
    sys.argv = [f"{job['program']}.py", *job["words"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.dump_traceback_later(PATIENCE)


def main() -> None:
    """Serve, and in each new process run one command."""
    import matplotlib.pyplot  # noqa: F401

    from equipoise.commands import exit_status
    from equipoise.commands import train as _train  # noqa: F401
    from equipoise.running.interrupts import leave
    from tests.faults.table import FAULTS

    print("ready", flush=True)
    job = jobs()
    settle(job)
    if job["fault"] is not None:
        FAULTS[job["fault"]].inject()
    from equipoise.commands import _module

    leave(exit_status(_module(job["program"]).main, job["words"]))


if __name__ == "__main__":
    main()
