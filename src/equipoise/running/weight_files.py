"""Files of weights: a checkpoint of ours, an exported network, a published state dict.

None of them runs code when it is read.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from equipoise import interop
from equipoise.config.exported import (
    CONFIGURATION,
    FORMAT,
    WEIGHTS,
    is_exported,
    read_exported,
)
from equipoise.config.stored import UNREADABLE, Stored, stored_run
from equipoise.errors import TooLarge, UserError, read_json
from equipoise.errors.sizes import checkpoint_fault
from equipoise.interop.published_weights import WRAPPERS
from equipoise.models.transfer import placed

NETWORK = "model."
"""The prefix of the network's weights in our checkpoints."""


@dataclass(frozen=True)
class WeightFile:
    """Weights by their names in a network of ours.

    state: the objective's state beside them, such as a vocabulary. run: that of our checkpoint.
    """

    path: Path
    weights: dict[str, Tensor]
    state: Mapping[str, Any] = field(default_factory=dict)
    run: Stored | None = None


def read_weight_file(file: Path, ours: Mapping[str, Tensor]) -> WeightFile:
    """The content of a file; published weights get the names of the network with weights `ours`.

    Raises UserError where it cannot be read, or holds no weights.
    """
    exported = file.suffix == ".safetensors"
    content = _read_exported(file) if exported else read_weights(file)
    state = content.get("state_dict")
    if isinstance(state, Mapping) and {"config", "choices"} <= set(content):
        weights = {n: t for n, t in tensors(state).items() if n.startswith(NETWORK)}
        return WeightFile(
            file,
            {name.removeprefix(NETWORK): tensor for name, tensor in weights.items()},
            state.get("_extra_state") or {},
            stored_run(content, file),
        )
    plain = tensors(state if isinstance(state, Mapping) else content)
    return WeightFile(file, _in_our_names(content, plain, ours))


def tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict by name."""
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _in_our_names(
    content: Mapping[str, Any], plain: Mapping[str, Tensor], ours: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights in the form of which most fit; among equals, as they are in the file."""
    bare = {WRAPPERS.sub("", name): tensor for name, tensor in plain.items()}
    with warnings.catch_warnings():  # of other forms than the file's own
        warnings.simplefilter("ignore")
        forms = [bare, *interop.in_our_names(content, ours)]

    def fitting(form: Mapping[str, Tensor]) -> int:
        places = placed(form, ours)
        return sum(form[there].shape == ours[here].shape for here, there in places.items())

    return max(forms, key=fitting)


def _read_exported(file: Path) -> dict[str, Any]:
    """A safetensors file; if our export wrote it, with everything stored beside it.

    Raises UserError where it cannot be read.
    """
    try:
        if is_exported(file.parent) and file.name == WEIGHTS:
            told = read_json(file.parent / CONFIGURATION)
            if isinstance(told, dict) and told.get("format") == FORMAT:
                return read_exported(file.parent)
        return dict(load_file(file))
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"the weights {file} cannot be read: truncated, or not a safetensors file"
        ) from error


def read_weights(file: Path) -> Mapping[str, Any]:
    """The content of a file of weights, read without running code from it.

    Raises UserError where there is no such file, it is damaged, or holds a pickled module.
    """
    if not file.is_file():
        raise UserError(f"there is no weights file at {file}")
    try:
        if (fault := checkpoint_fault(file)) is not None:
            raise UserError(f"the weights {file} are damaged: {fault}; fetch them again")
        content = torch.load(file, map_location="cpu", weights_only=True)
    except TooLarge:
        raise
    except pickle.UnpicklingError as error:
        with file.open("rb") as opened:
            start = opened.read(2)
        if not start.startswith((b"\x80", b"PK")):  # of a pickle, and of a zip archive
            raise UserError(f"{file} is no weights file") from error
        raise UserError(
            f"{file} holds pickled objects, whose code would run when the file is read, or is not "
            "a weights file: where it was written, save only model.state_dict()"
        ) from error
    except UNREADABLE as error:
        raise UserError(
            f"the weights {file} cannot be read: truncated, or not a weights file"
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{file} holds a {type(content).__name__}, not the mapping of a state dict")
    return content
