"""Reading the checkpoints that runs leave, and loading their weights.

Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.errors import UserError

if TYPE_CHECKING:
    from torch import nn

UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError,
    OverflowError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""What a file that is no checkpoint, or a damaged one, makes its readers raise."""


def existing_checkpoint(path: str | Path) -> Path:
    """The path, if there is such a file; nothing heavy is imported to find that out.

    Raises UserError where there is none.
    """
    file = Path(path)
    if not file.is_file():
        near = sorted(file.parent.glob("*.ckpt")) if file.parent.is_dir() else []
        hint = f"did you mean {near[0]}?" if near else "give runs/<...>/checkpoints/last.ckpt"
        raise UserError(f"there is no checkpoint at {file}; {hint}")
    return file


def read_content(file: Path) -> Any:
    """What a checkpoint file holds, on the CPU, once its checksums are found right.

    Raises UserError where it cannot be read.
    """
    import torch

    try:
        if (damaged := _damaged_entry(file)) is not None:
            raise UserError(
                f"the checkpoint {file} is damaged: the checksum of its entry {damaged} is wrong; "
                "use another one, such as last.ckpt or best.ckpt of the same run"
            )
        return torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UserError(
            f"the checkpoint {file} cannot be read (truncated, or not written by a run of ours): "
            f"use another one, such as last.ckpt or best.ckpt of the same run"
        ) from error


def _damaged_entry(file: Path) -> str | None:
    """The first entry of the archive whose content does not have its checksum; torch reads on."""
    with zipfile.ZipFile(file) as archive:
        return archive.testzip()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of ours, on the CPU.

    Raises UserError where there is no such file, it is truncated or holds something else.
    """
    file = existing_checkpoint(path)
    content = read_content(file)
    entries = set(content) if isinstance(content, dict) else set()
    missing = {"state_dict", "config", "choices"} - entries
    if missing:
        raise UserError(
            f"the checkpoint {file} was not written by a run of ours: it has no {min(missing)}"
        )
    return dict(content)


def load_weights(task: nn.Module, state: Mapping[str, Any]) -> None:
    """Load all weights and buffers; what only training draws from may differ.

    Counters of random numbers (`_extra_state`) belong to the jitter and the regulariser, which an
    evaluation may have been given or spared. Raises UserError where the weights are those of
    another network.
    """
    own = task.state_dict()
    resized = [n for n, w in own.items() if n in state and _shape(w) != _shape(state[n])]
    if resized:
        raise UserError(
            f"the weights of the checkpoint do not fit this network, first at {resized[0]} "
            f"({_shape(state[resized[0]])} there, {_shape(own[resized[0]])} here): leave out the "
            "task, model and sizes that were typed, or give those of the run that wrote it"
        )
    found = task.load_state_dict(state, strict=False)
    unfit = [*found.missing_keys, *found.unexpected_keys]
    if wrong := [name for name in unfit if not name.endswith("_extra_state")]:
        raise UserError(
            f"the checkpoint is one of another network, which differs at {', '.join(wrong[:3])}: "
            "leave out the task and model that were typed, or give those of the run that wrote it"
        )


def _shape(value: Any) -> list[int] | None:
    return list(value.shape) if hasattr(value, "shape") else None
