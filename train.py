"""Train a model: `python train.py --help`."""

from equipoise.command_line import train_main

if __name__ == "__main__":
    train_main()
