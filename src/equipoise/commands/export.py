"""Write a trained model for others: weights with a card, or a program."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.commands.stored_model import StoredRequest, read_settings
from equipoise.config.exported import LICENCES
from equipoise.errors import UserError, nearest, read_json

if TYPE_CHECKING:
    from equipoise.running.loaded import Loaded

COMMAND = "export"
FORMATS = ("safetensors", "torch_export", "onnx")
METRICS = "metrics.json"
USAGE = "%(prog)s <run or checkpoint> <folder> [setting=value ...]"
SETTINGS = """the settings:
  format=safetensors   weights, configuration and model card: what equipoise.load and every command
                       that takes a checkpoint reads
  format=torch_export  the network as a program of torch.export, model.pt2
  format=onnx          the network as a program in ONNX, model.onnx; it needs the extra `export`
  steps=<number>       of a program: the evaluations of f that every sample gets, whatever its
                       residual; default: the solver's max_steps
  licence=mit          of the weights, by the hub's short name; other: one that the hub does not
                       list; default: the card states none
  name=<name>          the title of the model card; default: <model>-<task>
  overwrite            replace the files of an earlier export in the folder
  trust=[my_package]   packages of your own whose classes the checkpoint may name

  python -m equipoise export runs/digits/mdeq/<time> exported/ format=onnx steps=12
"""
SETTING = re.compile(r"-.*|\w+=.*|overwrite|private", re.DOTALL)
MODELS = ("model.safetensors", "model.pt2", "model.onnx")
"""The file of an exported folder, by its format."""


@dataclass
class Request(StoredRequest):
    """The settings of an export; None: see `SETTINGS`."""

    format: str = "safetensors"
    steps: int | None = None
    licence: str | None = None
    name: str | None = None
    overwrite: bool = False


def main(words: Sequence[str]) -> int:
    """Write the folder and print what is in it; returns 0. Raises UserError."""
    operands, settings = operands_and_settings(words)
    request = read_settings(
        COMMAND, Request(), settings, str(__doc__).splitlines()[0], SETTINGS, usage=USAGE
    )
    check(COMMAND, request, operands, "folder")
    folder = Path(operands[0])
    print(f"{folder}: {export(request, folder)}")
    return 0


def operands_and_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words after the run, and the settings, among them the run as ckpt_path."""
    operands = [word for word in words if not SETTING.fullmatch(word)]
    settings = [word for word in words if SETTING.fullmatch(word)]
    if operands and not any(setting.startswith("ckpt_path=") for setting in settings):
        settings.append(f"ckpt_path={operands.pop(0)}")
    return operands, settings


def check(command: str, request: Request, operands: Sequence[str], target: str) -> None:
    """Raise UserError where a setting has an unusable value, or the target is missing.

    target: what to call the one word after the run.
    """
    if request.format not in FORMATS:
        hint = nearest(request.format, FORMATS) or f"; there are {', '.join(FORMATS)}"
        raise UserError(f"{command}: there is no format={request.format}{hint}")
    if request.licence is not None and request.licence not in LICENCES:
        hint = nearest(request.licence, LICENCES) or "; such are mit, apache-2.0 and other"
        raise UserError(f"{command}: the hub has no licence={request.licence}{hint}")
    if request.steps is not None and request.format == FORMATS[0]:
        raise UserError(
            f"{command}: steps is the budget of a program, but format=safetensors writes weights: "
            "add format=torch_export or format=onnx, or leave it out"
        )
    if len(operands) != 1:
        raise UserError(f"{command}: name the run or checkpoint and one {target}; see --help")


def export(request: Request, folder: Path) -> str:
    """Write the model to the folder, all files or none; returns the summary. Raises UserError."""
    with whole_folder(folder, request.overwrite) as unfinished:
        from equipoise.running.loaded import load

        loaded = load(request.ckpt_path, device="cpu", trust=request.trust)
        metrics = metrics_of(loaded.path)
        card = described(loaded, request, metrics)
        if request.format == FORMATS[0]:
            said = write_weights(loaded, card, unfinished)
        else:
            said = write_program(loaded, card, request, unfinished)
        if metrics is not None:
            (unfinished / METRICS).write_text(json.dumps(metrics, indent=2) + "\n")
    return said


@contextmanager
def whole_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """An empty folder beside the target, whose files are moved there if all goes well.

    Raises UserError where the target has files and they may not be replaced, or it cannot be
    written.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise UserError(
            f"{folder} exists: name another folder, or replace its files with overwrite"
        )
    if (folder / "config.yaml").is_file():  # its own weights would be hidden
        raise UserError(f"{folder} is the folder of a run: name another one")
    unfinished = folder.with_name(f"{folder.absolute().name}.partial")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        folder.mkdir(exist_ok=True)
        for file in unfinished.iterdir():
            file.replace(folder / file.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_weights(loaded: Loaded, card: dict[str, Any], folder: Path) -> str:
    """model.safetensors, config.json and README.md."""
    from equipoise.config.exported import write_exported
    from equipoise.config.stored import read_checkpoint
    from equipoise.report.model_card import Card, model_card

    told = {"versions": card["versions"], "preprocessing": card["preprocessing"]}
    content = read_checkpoint(loaded.path) | {"class_names": card["class_names"]}
    write_exported(content, folder, told)
    (folder / "README.md").write_text(model_card(Card(**card)), encoding="utf-8")
    return f"{card['parameters']:,} parameters, read by equipoise.load"


def write_program(loaded: Loaded, card: dict[str, Any], request: Request, folder: Path) -> str:
    """The program, config.json with its description, and README.md."""
    from equipoise.report.model_card import Card, ProgramCard, model_card
    from equipoise.running.programs import program_of
    from equipoise.running.tracing import (
        ONNX,
        TORCH_EXPORT,
        difference,
        write_onnx,
        write_torch_export,
    )

    program = program_of(loaded.network, loaded.config, card["wants"], request.steps)
    spent = sum(program.evaluations.values())
    print(f"tracing {spent} evaluations of f; it may take minutes", flush=True)
    in_onnx = request.format == "onnx"
    file = ONNX if in_onnx else TORCH_EXPORT
    run = (write_onnx if in_onnx else write_torch_export)(program, folder / file)
    of_program = ProgramCard(
        file=file,
        inputs={name: list(value.shape) for name, value in program.inputs.items()},
        outputs=program.outputs,
        evaluations=program.evaluations,
        difference=difference(program, run),
    )
    kept = ("task", "model", "class_names", "preprocessing", "versions")
    told = {key: card[key] for key in kept} | {"program": vars(of_program)}
    (folder / "config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(
        model_card(Card(**card, program=of_program)), encoding="utf-8"
    )
    fixed = f"{spent} evaluations of f for every sample, whatever its residual; " if spent else ""
    return f"{file}, {fixed}within {of_program.difference:.1g} of the network at that budget"


def metrics_of(checkpoint: Path) -> dict[str, Any] | None:
    """The metrics.json that belongs to a checkpoint, None where there is none.

    It lies in an exported folder, or above the checkpoints of a run, where it belongs to the one
    that was tested.
    """
    exported = checkpoint.is_dir()
    file = (checkpoint if exported else checkpoint.absolute().parent.parent) / METRICS
    try:
        metrics = read_json(file)
    except (OSError, ValueError):
        return None
    if not isinstance(metrics, dict):
        return None
    tested = (metrics.get("details") or {}).get("tested_checkpoint")
    return metrics if exported or tested in (None, checkpoint.name) else None


def described(
    loaded: Loaded, request: Request, metrics: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The content of the card that does not depend on the format."""
    from equipoise.config.about import about
    from equipoise.running.programs import solver_of
    from equipoise.running.results import versions

    task, choices = loaded.config["task"], loaded.choices
    return {
        "name": request.name or f"{choices['model']}-{choices['task']}",
        "task": choices["task"],
        "model": choices["model"],
        "wants": str(about(task, "wants", "")),
        "parameters": sum(weight.numel() for weight in loaded.network.parameters()),
        "solver": solver_of(loaded.network),
        "licence": request.licence,
        "data_licence": about(task, "licence"),
        "data_path": data_name(task.get("path")),
        "class_names": loaded.class_names,
        "metrics": metrics,
        "preprocessing": preprocessing_of(loaded),
        "versions": versions(),
    }


def data_name(path: str | None) -> str | None:
    """The name of a dataset of the hub, or that of a local folder without its parents."""
    from equipoise.data.folders import is_local

    if not path:
        return None
    return Path(path).name if is_local(path) else path


def preprocessing_of(loaded: Loaded) -> dict[str, Any]:
    """The preprocessing of a picture in words, and its numbers; empty where none is read."""
    if not hasattr(type(loaded.data), "preprocessing"):
        return {}
    told = getattr(type(loaded.data).preprocessing, "__doc__", None) or ""
    return {"what": " ".join(told.split()), **loaded.data.preprocessing.numbers()}
