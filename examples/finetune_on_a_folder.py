"""Fine-tune an MDEQ on a folder of images, from the weights of another run.

    python examples/finetune_on_a_folder.py <folder> <checkpoint>

The folder has train/<class>/* (and val/, test/ if there are any) or the classes themselves. Of the
checkpoint everything fits but the head, which begins anew for these classes.
"""

from __future__ import annotations

import argparse

import equipoise


def main() -> None:
    """Train from scratch and from the weights, and compare; then name what a picture shows."""
    parser = argparse.ArgumentParser(description="Fine-tune an MDEQ on a folder of images.")
    parser.add_argument("folder")
    parser.add_argument("checkpoint", help="of an MDEQ on images of as many channels")
    parser.add_argument("--size", type=int, default=32, help="pixels of a side")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()

    settings = [
        "task=image_folder", f"task.path='{given.folder}'", f"task.image_size={given.size}",
        f"task.image_channels={given.channels}", f"trainer.max_epochs={given.epochs}",
    ]  # fmt: skip
    for name, start in (("from scratch", []), ("fine-tuned", [f"init_from='{given.checkpoint}'"])):
        metrics = equipoise.run(*settings, *start)
        print(f"{name}: test accuracy {metrics['test']['accuracy']:.3f}")


if __name__ == "__main__":
    main()
