"""Evaluate a checkpoint: `python evaluate.py ckpt_path=<run>/checkpoints/best.ckpt`."""

from equipoise.command_line import evaluate_main

if __name__ == "__main__":
    evaluate_main()
