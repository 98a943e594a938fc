"""One state dict out of the several forms in which MDEQ's weights have been published."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equipoise.interop.errors import DoesNotFit

WRAPPERS = re.compile(r"^((module|model)\.)+")
COPIES = ("fullstage_copy.", "full_stage_copy.", "deq.func_copy.", "loss.")
"""The code of 2020 saves frozen copies of f, one step old; the segmentation's loss its weights."""
SECOND_NAME = "deq.func."
PRIMARY = "fullstage."


def primary(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return every weight once, by its name in the code of 2021.

    Takes a state dict, or a checkpoint with the entry `state_dict`; drops the prefixes of wrappers
    (`module.`, `model.`), frozen copies and the loss's weights, and knows `full_stage.` and the
    second names `deq.func.*` for `fullstage.*`. Second names whose values differ are named in a
    warning. Raises DoesNotFit where an entry is no tensor, or two entries claim one name.
    """
    nested = checkpoint.get("state_dict")
    entries = nested if isinstance(nested, Mapping) else checkpoint
    weights: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    for key, value in entries.items():
        name = _bare(str(key))
        if name.startswith(COPIES):
            continue
        target = second if name.startswith(SECOND_NAME) else weights
        _add(target, re.sub(f"^{re.escape(SECOND_NAME)}", PRIMARY, name), str(key), value)
    _warn_of_differences(weights, second)
    return {**second, **weights}


def _bare(key: str) -> str:
    name = WRAPPERS.sub("", key).replace("full_stage.", PRIMARY)
    name = name.replace(".parametrizations.weight.original0", ".weight_g")
    return name.replace(".parametrizations.weight.original1", ".weight_v")


def _add(weights: dict[str, Tensor], name: str, key: str, value: Any) -> None:
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DoesNotFit(
            f"the entry '{key}' is no tensor but a {type(value).__name__}: give the model's "
            "state_dict, or a checkpoint that holds it as 'state_dict'"
        ) from error
    if name in weights and not _same(weights[name], tensor):
        raise DoesNotFit(f"several entries are the weight '{name}', '{key}' among them, and differ")
    weights[name] = tensor


def _warn_of_differences(weights: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    names = [n for n, tensor in second.items() if n in weights and not _same(weights[n], tensor)]
    if names:
        duplicates = ", ".join(n.replace(PRIMARY, SECOND_NAME, 1) for n in names[:3])
        warnings.warn(
            f"{len(names)} duplicates differ from what they duplicate, and {PRIMARY}* is used: "
            f"{duplicates}" + (", ..." if len(names) > 3 else ""),
            stacklevel=3,
        )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))
