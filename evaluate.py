"""Evaluate a checkpoint: `python evaluate.py ckpt_path=<run>/checkpoints/best.ckpt`."""

import os
import signal
import sys

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        # Importing takes a moment, in which nothing can be lost.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from equipoise.commands import evaluate, exit_status
    from equipoise.running.interrupts import leave

    leave(exit_status(evaluate.main, sys.argv[1:]))
