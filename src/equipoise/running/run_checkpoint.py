"""The checkpoint that a user names by its file or its run, and the objects rebuilt from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from equipoise.config.about import about
from equipoise.config.exported import is_exported
from equipoise.config.recompose import trusted_packages
from equipoise.config.stored import Stored, read_checkpoint, stored_run
from equipoise.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

CHECKPOINTS = ("best.ckpt", "last.ckpt")
PROGRAMS = ("model.pt2", "model.onnx")
Module = TypeVar("Module", bound="nn.Module")


class StoredRun(NamedTuple):
    """The content of a checkpoint, and the run that it describes."""

    content: dict[str, Any]
    run: Stored

    @property
    def task(self) -> str:
        """The choice of the task."""
        return self.run.choices.get("task", "")

    @property
    def wants(self) -> str:
        """What its task wants of a model, which identifies the kind of task."""
        return str(about(self.run.config["task"], "wants") or "")

    @property
    def state(self) -> dict[str, Any]:
        """The objective's state beside the weights."""
        return self.content["state_dict"].get("_extra_state") or {}


def read_run(path: str | Path) -> StoredRun:
    """The checkpoint at a path, or the best, else the last one of a run's folder.

    Raises UserError where there is none that can be used.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"give the path of a run, not a {type(path).__name__}")
    file = checkpoint_of(Path(path))
    content = read_checkpoint(file)
    return StoredRun(content, stored_run(content, file))


def checkpoint_of(path: Path) -> Path:
    """The checkpoint of a run's folder; a file, or an exported folder, is one itself.

    Raises UserError without one.
    """
    if not path.is_dir() or is_exported(path):
        return path
    if (program := next((n for n in PROGRAMS if (path / n).is_file()), None)) is not None:
        raise UserError(
            f"the folder {path} holds a program, {program}, whose weights cannot be taken out: "
            "export the run with format=safetensors"
        )
    files = [path / "checkpoints" / name for name in CHECKPOINTS]
    existing = next((file for file in files if file.is_file()), None)
    if existing is None:
        wanted = " or ".join(f"checkpoints/{name}" for name in CHECKPOINTS)
        raise UserError(f"the folder {path} holds no {wanted}: give a run's folder or checkpoint")
    return existing


def restored(
    build: Callable[[dict[str, Any], Mapping[str, Any], Path], Module],
    checkpoint: StoredRun,
    device: str | None,
    trust: Sequence[str],
) -> tuple[Module, torch.device]:
    """What `build` makes of configuration and weights, ready for evaluation on the device.

    device: None for a GPU if there is one. Raises UserError where the device does not exist, or the
    checkpoint names untrusted code.
    """
    from equipoise.config.signatures import check_targets
    from equipoise.models.generation import usable_device
    from equipoise.running.messages import quiet_lightning

    quiet_lightning()
    content, run = checkpoint
    check_targets(run.config, trusted_packages(run, tuple(trust)))
    try:
        place = usable_device(device)
    except ValueError as error:
        raise UserError(str(error)) from error
    module = build(run.config, content["state_dict"], run.path)
    return module.to(place).eval(), place
