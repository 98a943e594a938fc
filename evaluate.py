"""Evaluate a checkpoint: `python evaluate.py ckpt_path=<run>/checkpoints/best.ckpt`."""

import os
import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        # Importing takes a moment, in which nothing can be lost.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from equipoise.command_line import evaluate_main

    evaluate_main()
