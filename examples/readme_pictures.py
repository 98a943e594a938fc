"""The pictures of README.md: train on digits and on scenes of digits, and copy what the runs draw.

    python examples/readme_pictures.py
    python examples/readme_pictures.py --output pictures trainer.max_epochs=1

Seven minutes on two CPU cores. Words behind the options are added to both trainings.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import equipoise


def main() -> None:
    """Write convergence.png, anytime.png and masks.png into the folder."""
    parser = argparse.ArgumentParser(description="Make the pictures of README.md.")
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"))
    parser.add_argument("overrides", nargs="*", help="settings of the trainings, such as seed=1")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as name:
        folder = Path(name)
        equipoise.run("task=digits", f"run_dir={folder}/digits", *arguments.overrides)
        checkpoint = f"ckpt_path={folder}/digits/checkpoints/best.ckpt"
        equipoise.evaluate(checkpoint, "anytime=curve", f"run_dir={folder}/curve")
        equipoise.run("task=digit_scenes", f"run_dir={folder}/scenes", *arguments.overrides)
        for picture in ("digits/convergence", "curve/anytime", "scenes/masks"):
            run, _, plot = picture.partition("/")
            shutil.copy(folder / run / "report" / f"{plot}.png", arguments.output)
            print(f"picture: {arguments.output / plot}.png")


if __name__ == "__main__":
    main()
