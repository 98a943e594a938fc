"""The folder of an exported model: weights in one file, everything else in another."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equipoise.errors import UserError, read_json

WEIGHTS = "model.safetensors"
CONFIGURATION = "config.json"
FORMAT = "equipoise"
OF_TRAINING = frozenset(
    {"callbacks", "curve", "loops", "lr_schedulers", "optimizer_states", "training_position"}
)
"""Entries of a checkpoint that only a resumed run reads."""
LICENCES = (
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0",
    "bigcode-openrail-m", "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd",
    "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0",
    "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0",
    "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m", "deepfloyd-if-license",
    "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2",
    "fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0",
    "h-research", "intel-research", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2",
    "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl",
    "ncsa", "odbl", "odc-by", "ofl-1.1", "openmdw-1.0", "openrail", "openrail++", "osl-3.0",
    "other", "pddl", "postgresql", "unknown", "unlicense", "wtfpl", "zlib",
)  # fmt: skip
"""The short names in the hub's documentation; for any other name it shows no licence."""


def is_exported(path: Path) -> bool:
    """Whether a path is the folder of an exported model."""
    return (path / WEIGHTS).is_file() and (path / CONFIGURATION).is_file()


def write_exported(content: Mapping[str, Any], folder: Path, told: Mapping[str, Any]) -> None:
    """Write a checkpoint without entries for resumed runs; told: further entries of the json.

    Every tensor keeps its name in the checkpoint; tensors that share memory are written separately.
    Raises UserError where a layer keeps a value that is neither a tensor nor plain data.
    """
    from safetensors.torch import save_file

    state = content["state_dict"]
    tensors = {n: value for n, value in state.items() if hasattr(value, "shape")}
    beside = {n: value for n, value in state.items() if n not in tensors}
    if not is_plain(beside):
        raise UserError(
            "this checkpoint cannot be exported: besides its weights it holds objects of the run "
            f"in {next(name for name in beside if not is_plain(beside[name]))}"
        )
    rest = {k: v for k, v in content.items() if k not in OF_TRAINING and is_plain(v)}
    described = {"format": FORMAT, **told, **rest, "state_dict": beside}
    save_file(
        {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    configuration = folder / CONFIGURATION
    configuration.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    (folder / WEIGHTS).chmod(configuration.stat().st_mode)  # readable by others, as the json is


def is_plain(value: Any) -> bool:
    """Whether the value survives a round trip through json."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def read_exported(folder: Path) -> dict[str, Any]:
    """The content of the checkpoint that a folder was exported from, its tensors on the CPU.

    Raises UserError where a file is missing, damaged, or not written by Equipoise.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        content = read_json(folder / CONFIGURATION)
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{folder} cannot be read ({_line(error)}): export or fetch it again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{folder / CONFIGURATION} was not written by python -m equipoise export: give the "
            "folder that it wrote"
        )
    kept = content.get("state_dict")
    return content | {"state_dict": tensors | (kept if isinstance(kept, dict) else {})}


def modified(path: Path) -> tuple[int, int]:
    """When a checkpoint was last written, in nanoseconds, and its size.

    For an exported folder, both come from its two files.
    """
    files = [path / name for name in (WEIGHTS, CONFIGURATION)] if path.is_dir() else [path]
    told = [os.stat(file) for file in files]
    return max(status.st_mtime_ns for status in told), sum(status.st_size for status in told)


def _line(error: Exception) -> str:
    """The first line of another library's error."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
