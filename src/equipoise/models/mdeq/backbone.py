"""Weights of the stem and the cell from a trained network, for another head."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

PARTS = ("stem.", "cell.")
"""The parts that a head stands on."""


def load_backbone(network: nn.Module, checkpoint: str | Path) -> None:
    """Copy stem and cell of an MDEQ from a checkpoint into `network`, in place; heads stay.

    The checkpoint holds a `state_dict` whose names start with "model."; it is read without
    unpickling any code. Raises ValueError where it cannot be read, or does not fit.
    """
    given = _backbone_of(checkpoint)
    own = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(PARTS)}
    lost = sorted(set(own) ^ set(given))
    other = [name for name in own if name in given and own[name].shape != given[name].shape]
    if lost or other:
        name = (lost or other)[0]
        raise ValueError(
            f"the backbone of {checkpoint} has other shapes than this model, first at {name}: give "
            "model.size and the other shapes of the run that wrote it"
        )
    network.load_state_dict(given, strict=False)


def _backbone_of(checkpoint: str | Path) -> dict[str, Tensor]:
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"there is no checkpoint at {checkpoint}") from error
    except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{checkpoint} is not a checkpoint of ours, or it is truncated; a published one is "
            "converted by `python -m equipoise import-weights`"
        ) from error
    weights = content.get("state_dict") if isinstance(content, dict) else None
    named = {name.removeprefix("model."): tensor for name, tensor in (weights or {}).items()}
    backbone = {name: tensor for name, tensor in named.items() if name.startswith(PARTS)}
    if not backbone:
        raise ValueError(
            f"{checkpoint} holds no stem and cell of an MDEQ: give a checkpoint of model=mdeq"
        )
    return backbone
