"""Predict the couplings of molecules in a csv file with a trained model."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from equipoise.commands.stored_model import COMMANDS, StoredRequest, read_settings
from equipoise.errors import UserError
from equipoise.running.run_checkpoint import StoredRun, read_run, restored

COMMAND = "predict"
SETTINGS = """the settings:
  ckpt_path=<file>     a checkpoint of a run on couplings, or the run's folder: its best.ckpt, or
                       else its last.ckpt
  pairs=<file>         the pairs of atoms to predict: a csv file with the columns id, molecule_name,
                       atom_index_0, atom_index_1 and type; default: test.csv beside structures.csv
                       if there is one. Otherwise, and with pairs=all: every pair of hydrogen with
                       hydrogen, carbon or nitrogen over one to three bonds
  output=predictions.csv
                       the file to write: id and scalar_coupling_constant in the order of the pairs
                       file; of all pairs also molecule, atoms and type, and fc, sd, pso and dso if
                       the model was trained with them
  overwrite            replace the file if it exists
  batch_size=32        how many molecules are predicted together
  max_pairs=<number>   how many pairs of atoms of a molecule the model sees; default: as in training
  workers=<number>     processes that compute features; default: all cores for large files
  device=cpu           where to compute; default: a GPU if available
  trust=[my_package]   packages of your own whose classes the checkpoint may name

structures.csv has the columns molecule_name, atom_index, atom, x, y and z (in Angstrom); a folder
in its place is one with such a file:
  python -m equipoise predict ckpt_path=<run> structures.csv pairs=test.csv output=submission.csv
"""
SETTING = re.compile(r"-.*|\w+=.*|overwrite", re.DOTALL)
"""What is no name of a file; runs/lr=0.1/structures.csv is one."""


@dataclass
class Request(StoredRequest):
    """The settings of a prediction; None: see `SETTINGS`."""

    pairs: str | None = None
    output: str = "predictions.csv"
    overwrite: bool = False
    batch_size: int = 32
    max_pairs: int | None = None
    workers: int | None = None


def main(words: Sequence[str]) -> int:
    """Predict, write the file and tell what was predicted; returns 0. Raises UserError."""
    request, files = parse(words)
    checkpoint = read_run(request.ckpt_path)
    check_kind(checkpoint)
    from equipoise.commands.coupling_predictions import predict_couplings
    from equipoise.running.build import restored_task
    from equipoise.running.prediction import Convergence

    began = time.perf_counter()
    task, device = restored(restored_task, checkpoint, request.device, request.trust)
    convergence = Convergence(task)
    with whole_file(Path(request.output), request.overwrite) as target:
        said = predict_couplings(checkpoint, task, device, request, files, target)
    parts = [said, convergence.described(), f"{time.perf_counter() - began:.1f} s"]
    print(f"{request.output}: {', '.join(part for part in parts if part)}")
    return 0


def parse(words: Sequence[str]) -> tuple[Request, list[Path]]:
    """The settings, and the files to read.

    Raises UserError for an unknown setting, a value that cannot be used, or without a checkpoint.
    """
    files = [Path(word) for word in words if not SETTING.fullmatch(word)]
    settings = [word for word in words if SETTING.fullmatch(word)]
    request = read_settings(
        COMMAND, Request(), settings, str(__doc__), SETTINGS, files="structures.csv"
    )
    for name in ("batch_size", "max_pairs", "workers"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise UserError(f"predict: {name}={value} must be 1 or more")
    return request, files


def check_kind(checkpoint: StoredRun) -> None:
    """Raise UserError for a checkpoint of another kind of task, telling what that is for."""
    if (other := COMMANDS.get(checkpoint.wants)) != COMMAND:
        use = f"python -m equipoise {other}" if other else "python evaluate.py"
        raise UserError(
            f"the checkpoint {checkpoint.run.path} is of task={checkpoint.task}, and predict is "
            f"for couplings, such as those of task=nmr_small: use {use}"
        )


@contextmanager
def whole_file(target: Path, overwrite: bool) -> Iterator[IO[str]]:
    """A text file beside the target, which takes its place where all goes well.

    It is opened at once, so that nothing is computed that cannot be written. Raises UserError where
    it cannot, or where the target exists and may not be replaced.
    """
    if target.is_dir():
        raise UserError(f"{target} is a folder: give output= the name of a file")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists: choose another output=, or replace it with overwrite")
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            try:
                yield file
            except BaseException:
                unfinished.unlink()
                raise
        os.replace(unfinished, target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error
