"""Predict with a trained model: classes, masks, features, couplings, text.

Which module of this folder does it follows from what the task of the checkpoint wants of a model.
Such a module has `SETTINGS`, the names of those of its own, and `predict(job)`, which writes the
output and returns what to say of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from equipoise.commands.predict.job import Job, Request
from equipoise.commands.stored_model import read_settings
from equipoise.errors import UserError
from equipoise.running.run_checkpoint import StoredRun, read_run

COMMAND = "predict"
USAGE = "%(prog)s <run or checkpoint> <files or folder> out.csv [setting=value ...]"
SETTINGS = """what can be predicted:
  pictures             classes with probabilities, masks as PNG beside the csv file, or features:
                       files, folders with all that lie below them, an array .npy or .npz, or a
                       table .parquet
  molecules            couplings, of a file structures.csv
  text                 the probability of each token of a text; generate continues one
  sentences            translations, of a file with one sentence a line
  surveys              answers, of a file with one condition a line; query answers a single one
  rows of numbers      classes, of a file in libsvm's format
  other samples        those of split=test, of the run's own data or of the folder that is given

the settings of all:
  overwrite            replace the output if it exists
  batch_size=<number>  how many samples are predicted together; default: as in the test
  device=cpu           where to compute; default: a GPU if available
  trust=[my_package]   packages of your own whose classes the checkpoint may name
  ckpt_path=<file>, output=predictions.csv
                       other ways to give the first and the last word

of pictures:
  split=test           those of the run's own data in place of files; or val
  top=<number>         the most likely classes alone; default: all, of more than 100 the first 5
  damaged=error        or skip: leave damaged files out, and list them
  overlays=true        for masks: also draw each over its picture
  workers=<number>     processes that decode; default: up to 8 for a GPU, else none

of molecules:
  pairs=<file>         the pairs of atoms to predict: a csv file with the columns id, molecule_name,
                       atom_index_0, atom_index_1 and type; default: test.csv beside structures.csv
                       if there is one. Otherwise, and with pairs=all: every pair of hydrogen with
                       hydrogen, carbon or nitrogen over one to three bonds
  max_pairs=<number>   how many pairs of atoms of a molecule the model sees; default: as in training
  workers=<number>     processes that compute features; default: all cores for large files

of sentences:
  beam=<number>, length_penalty=<a>
                       as of translate; default: what the task's test uses

  python -m equipoise predict runs/digits/mdeq/<time> pictures/ labels.csv
"""
SETTING = re.compile(r"-.*|\w+=.*|overwrite", re.DOTALL)
"""Matches a setting, and not a file's name such as runs/lr=0.1/structures.csv."""
OF_ALL = frozenset({"ckpt_path", "output", "overwrite", "batch_size", "device", "trust"})
ENDINGS = (".csv", ".npz")
MODULES = {
    "logits": "pictures", "mask_logits": "pictures", "logits_and_mask_logits": "pictures",
    "embeddings": "pictures", "couplings": "couplings", "token_logits": "tokens",
    "translation_logits": "translations", "range_estimate": "answers",
}  # fmt: skip
"""By what the task wants of its model, the module that predicts; `samples` does for any other."""


def main(words: Sequence[str]) -> int:
    """Predict, write the file and print what was predicted; returns 0. Raises UserError."""
    request, files = parse(words)
    checkpoint = read_run(request.ckpt_path)
    module: Any = import_module(f"{__name__}.{MODULES.get(checkpoint.wants, 'samples')}")
    refuse_others(words, module.SETTINGS, checkpoint)
    began = time.perf_counter()
    said = module.predict(Job(checkpoint, request, files))
    print(f"{request.output}: {said}, {time.perf_counter() - began:.1f} s")
    return 0


def parse(words: Sequence[str]) -> tuple[Request, list[Path]]:
    """The settings, and the files to read.

    The first word that is not a setting names the run, unless ckpt_path does; the last one names
    the output, unless output or ckpt_path is given or nothing would be left to read. Raises
    UserError for an unknown setting, an unusable value, or without a checkpoint.
    """
    operands = [word for word in words if not SETTING.fullmatch(word)]
    settings = [word for word in words if SETTING.fullmatch(word)]
    if operands and not _given("ckpt_path", settings):
        settings.append(f"ckpt_path={operands.pop(0)}")
        least = 1 if _given("split", settings) else 2
        if len(operands) >= least and not _given("output", settings):
            settings.append(f"output={operands.pop()}")
    request = read_settings(
        COMMAND, Request(), settings, str(__doc__).splitlines()[0], SETTINGS, usage=USAGE
    )
    check(request)
    return request, [Path(word) for word in operands]


def check(request: Request) -> None:
    """Raise UserError where a setting has a value that cannot be used."""
    for name in ("batch_size", "max_pairs", "top", "beam"):
        if (value := getattr(request, name)) is not None and value < 1:
            raise UserError(f"predict: {name}={value} must be 1 or more")
    for name, choices in (("damaged", ("error", "skip")), ("split", (None, "val", "test"))):
        if (value := getattr(request, name)) not in choices:
            known = " or ".join(choice for choice in choices if choice)
            raise UserError(f"predict: {name}={value} must be {known}")
    if Path(request.output).is_dir():
        raise UserError(f"{request.output} is a folder: give output= the name of a file")
    if Path(request.output).suffix.lower() not in ENDINGS:
        raise UserError(
            f"predict writes a table, {' or '.join(ENDINGS)}, and cannot write {request.output}: "
            "the last word names the output"
        )


def refuse_others(words: Sequence[str], own: Collection[str], checkpoint: StoredRun) -> None:
    """Raise UserError where a setting is given that this kind of task ignores."""
    names = [word.partition("=")[0] for word in words if SETTING.fullmatch(word)]
    for name in names:
        if name not in OF_ALL and name not in own:
            takes = ", ".join(sorted(own)) or "none of its own"
            raise UserError(
                f"predict: {name} does nothing for task={checkpoint.task}, whose settings are "
                f"{takes}: leave it out"
            )


def _given(name: str, settings: Sequence[str]) -> bool:
    return any(setting.startswith(f"{name}=") for setting in settings)
