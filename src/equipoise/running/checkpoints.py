"""Writes, reads and loads a run's checkpoint files: whole or not at all, never failing silently."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from equipoise.config.stored import read_content
from equipoise.errors import RunFailed, UserError
from equipoise.report.whole import reason, whole
from equipoise.running.sharding import divided_weights

OWN = ("callbacks", "state_dict")
"""Entries of a checkpoint to which the user's own classes may add."""


class CheckpointNotSaved(RunFailed):
    """A checkpoint could not be written; the earlier one is unchanged."""


@contextmanager
def saved(target: Path) -> Iterator[IO[bytes]]:
    """A file that replaces a checkpoint once it is complete and synced to the disk.

    Raises CheckpointNotSaved with the cause where that fails.
    """
    try:
        with whole(target, "wb") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise CheckpointNotSaved(
            f"the checkpoint {target} could not be saved: {reason(error)}; free space or "
            "grant write permission there, or choose another folder with run_dir="
        ) from error


class CheckpointFile(CheckpointIO):
    """Writes a file beside the target, syncs it, and renames it over the target.

    So at every moment there is the old checkpoint or the new one, even if the process is killed
    or the machine stops. `always` is added to every checkpoint, including weights-only ones, and
    so is the result of calling `also` at that moment. The unfinished file has the target's name
    with ".partial" appended.

    Raises CheckpointNotSaved with the cause where that fails, or where the content holds what no
    checkpoint is read with: a run must not learn that at its end.
    """

    def __init__(
        self,
        always: dict[str, Any] | None = None,
        also: Callable[[], Mapping[str, Any]] = dict[str, Any],
    ) -> None:
        self.always = always or {}
        self.also = also

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write the checkpoint."""
        target = Path(path)
        content = {**checkpoint, **self.always, **self.also()}
        with saved(target) as file:
            torch.save(content, file)
            file.flush()
            if foreign := get_unsafe_globals_in_checkpoint(file.name):
                raise CheckpointNotSaved(
                    f"the checkpoint {target} could not be read again, because {_holder(content)} "
                    f"holds objects of {', '.join(sorted(foreign))}: let its state_dict give plain "
                    "values and tensors, such as float(value) for a number of NumPy"
                )

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read plain data onto the CPU; raises UserError where the file is damaged."""
        content: dict[str, Any] = read_content(Path(path))
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the file, if it is there."""
        Path(path).unlink(missing_ok=True)


def _holder(content: Mapping[str, Any]) -> str:
    """Which entry of a checkpoint, or whose state in it, holds an object."""
    states = {f"{kind}.{name}": s for kind in OWN for name, s in content.get(kind, {}).items()}
    for name, part in {**states, **content}.items():
        written = io.BytesIO()
        torch.save(part, written)
        written.seek(0)
        if get_unsafe_globals_in_checkpoint(written):
            return name
    return "it"


def load_weights(task: nn.Module, state: Mapping[str, Any]) -> None:
    """Load all weights and buffers; counters of random numbers in training may differ.

    Those counters (`_extra_state`) belong to the jitter and the regulariser, which an
    evaluation may or may not have. Raises UserError where the weights are those of
    another network.
    """
    ours = task.state_dict()
    resized = [n for n, w in ours.items() if n in state and _shape(w) != _shape(state[n])]
    if resized:
        raise UserError(
            f"the weights of the checkpoint do not fit this network, first at {resized[0]} "
            f"({_shape(state[resized[0]])} there, {_shape(ours[resized[0]])} here): leave out the "
            "task, model and sizes, or use those of the run that wrote it"
        )
    keys = task.load_state_dict(divided_weights(state, ours), strict=False)
    unfit = [*keys.missing_keys, *keys.unexpected_keys]
    if wrong := [name for name in unfit if not name.endswith("_extra_state")]:
        raise UserError(
            f"the checkpoint belongs to another network, which differs at {', '.join(wrong[:3])}: "
            "leave out task and model, or use those of the run that wrote it"
        )


def _shape(value: Any) -> list[int] | None:
    return list(value.shape) if hasattr(value, "shape") else None
