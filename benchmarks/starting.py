"""What lies between `python train.py` and the first evaluation of f: compositions and frames.

python -m benchmarks.starting [overrides]
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl

import equipoise
from equipoise.equilibrium import Equilibrium

ROOT = Path(__file__).parents[1]
OURS = Path(equipoise.__file__).parent


class Counted:
    """A method of a class that counts its calls."""

    def __init__(self, owner: type, name: str) -> None:
        self.calls = 0
        method = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return method(*args, **kwargs)

        setattr(owner, name, counting)


def frames(innermost: FrameType | None) -> Iterator[FrameType]:
    """The frames of a stack, the innermost first."""
    while innermost is not None:
        yield innermost
        innermost = innermost.f_back


def end_at_first_evaluation(report: Callable[[list[FrameType]], None]) -> None:
    """Call `report` with our own frames instead of the first f, and end the process."""
    forward = Equilibrium.forward

    def first(*_: Any) -> NoReturn:
        report([f for f in frames(sys._getframe()) if OURS in Path(f.f_code.co_filename).parents])
        sys.stdout.flush()
        os._exit(0)

    def reported(layer: Equilibrium, f: Any, z0: Any, *inputs: Any) -> Any:
        return forward(layer, first, z0, *inputs)

    Equilibrium.forward = reported  # type: ignore[method-assign]


def main(overrides: list[str]) -> None:
    compositions = Counted(ConfigLoaderImpl, "load_configuration")

    def report(ours: list[FrameType]) -> None:
        for frame in reversed(ours):
            place = Path(frame.f_code.co_filename).relative_to(OURS)
            print(f"  {place}:{frame.f_lineno} {frame.f_code.co_name}")
        files = {frame.f_code.co_filename for frame in ours}
        print(f"compositions: {compositions.calls}")
        print(f"our own frames at the first f: {len(ours)}, in {len(files)} files")

    end_at_first_evaluation(report)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.argv = ["train.py", *overrides]
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
