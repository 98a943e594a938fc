"""Train a model: `python train.py --help`."""

import os
import signal
import sys

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        # Importing takes a moment, in which nothing can be lost.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from equipoise.commands import exit_status, train
    from equipoise.running.interrupts import leave

    leave(exit_status(train.main, sys.argv[1:]))
