"""Starting from a checkpoint's backbone, on which a new head or a classifier is trained."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from equipoise.errors import Unreadable
from equipoise.errors.sizes import archive_fault

PLACES = ("model.encoder.", "model.")
"""Prefixes of a backbone in a checkpoint: of an encoder trained on views, or of a network."""
MOST_NAMED = 6
UNREADABLE = (
    RuntimeError, EOFError, OSError, LookupError, ValueError, MemoryError, zipfile.BadZipFile,
)  # fmt: skip


def load_backbone(network: nn.Module, checkpoint: str | Path, parts: Sequence[str]) -> None:
    """Copy the weights of `parts`, such as "stem." and "cell.", into `network`, in place.

    The checkpoint holds a `state_dict` in which the parts are named below "model." or
    "model.encoder."; it is read without unpickling any code. Either all of these weights are copied
    or none. Raises ValueError, which names what does not fit, if it cannot be read or does not
    match.
    """
    weights = _backbone_of(checkpoint, parts)
    shapes = {
        name: tensor.shape
        for name, tensor in network.state_dict().items()
        if name.startswith(tuple(parts))
    }
    strange = sorted(set(shapes) ^ set(weights))
    strange += [n for n in shapes if n in weights and shapes[n] != weights[n].shape]
    if strange:
        raise ValueError(
            f"the backbone of {checkpoint} has other shapes than this model, at {_listed(strange)}:"
            " give model.size and the other shapes of the run that wrote it"
        )
    network.load_state_dict(weights, strict=False)


def _backbone_of(checkpoint: str | Path, parts: Sequence[str]) -> dict[str, Tensor]:
    entries = _state_of(checkpoint)
    for place in PLACES:
        names = tuple(place + part for part in parts)
        if any(name.startswith(names) for name in entries):
            return {n.removeprefix(place): t for n, t in entries.items() if n.startswith(names)}
    kinds = " and ".join(part.rstrip(".") for part in parts)
    raise ValueError(
        f"{checkpoint} holds no {kinds} below {' or '.join(PLACES)}, its weights are called "
        f"{_listed(list(entries))}: give a checkpoint of the same kind of network, or convert a "
        "published one with `python -m equipoise import-weights`"
    )


def _state_of(checkpoint: str | Path) -> dict[str, Tensor]:
    try:
        if (fault := archive_fault(Path(checkpoint))) is not None:
            raise Unreadable(f"{checkpoint} is damaged: {fault}; fetch it again")
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"there is no checkpoint at {checkpoint}") from error
    except Unreadable:
        raise
    except pickle.UnpicklingError as error:
        raise Unreadable(
            f"{checkpoint} holds pickled objects, whose code would run when it is read: use a "
            "checkpoint that Equipoise has written"
        ) from error
    except UNREADABLE as error:
        raise ValueError(
            f"{checkpoint} is not an Equipoise checkpoint, or it is truncated; a published one is "
            "converted by `python -m equipoise import-weights`"
        ) from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise ValueError(
            f"{checkpoint} has no state_dict, as an Equipoise checkpoint has; a published one is "
            "converted by `python -m equipoise import-weights`"
        )
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
