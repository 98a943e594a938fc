"""A published set in a safetensors file; a run maps the parts that it reads into memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from equipoise.data.module import SPLITS, SplitName
from equipoise.data.multimodal.module import MODALITIES, MultimodalSamples
from equipoise.data.multimodal.published import PublishedSet, check_split
from equipoise.errors import UserError

FORMAT = "equipoise multimodal 1"
ENDING = ".safetensors"
ALIGNMENT = 8  # bytes, so that every number is aligned
PART = 1 << 24  # bytes written at a time
KINDS = {torch.int64: "I64", torch.float32: "F32", torch.uint8: "U8"}
AGAIN = "make it again with python -m equipoise convert-multimodal"


def write_stored(
    content: PublishedSet, target: Path, progress: Callable[[int], Any] = lambda count: None
) -> None:
    """Write a set, whole or not at all; progress advances by the bytes of every part written.

    Raises UserError if it cannot be written.
    """
    tensors = _tensors(content)
    unfinished = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                file.write(_header(tensors, content.replaced))
                for part in chain.from_iterable(map(_parts, tensors.values())):
                    file.write(part)
                    progress(len(part))
            os.replace(unfinished, target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error


def size_of(content: PublishedSet) -> int:
    """How many bytes of numbers the file will hold."""
    return sum(tensor.nbytes for tensor in _tensors(content).values())


def read_stored(file: Path) -> PublishedSet:
    """Open a file that `write_stored` wrote, mapped into memory.

    Raises UserError if it is damaged or of another kind.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{file} is truncated, damaged or no safetensors file: {AGAIN}") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{file} was not written by convert-multimodal: {AGAIN}")
    splits: dict[SplitName, MultimodalSamples] = {}
    identifiers: dict[SplitName, list[str]] = {}
    replaced: dict[str, dict[str, int]] = {}
    try:
        for name in SPLITS:
            splits[name] = _samples(tensors, name)
            identifiers[name] = _names(tensors.get(f"{name}.identifiers"))
            check_split(splits, name, len(identifiers[name]), file)
        counts = json.loads(metadata["replaced"])
        for name in SPLITS:
            replaced[name] = {m: int(counts[name][m]) for m in MODALITIES}
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{file} lacks a part, or has one of another kind: {AGAIN}") from error
    return PublishedSet(splits, identifiers, replaced)


def _tensors(content: PublishedSet) -> dict[str, Tensor]:
    """The arrays in the order of writing: numbers of many bytes first, names last."""
    tensors = {f"{name}.label": samples.labels for name, samples in content.splits.items()}
    for name, samples in content.splits.items():
        tensors |= {f"{name}.{modality}": samples.streams[modality] for modality in MODALITIES}
    for name, names in content.identifiers.items():
        if names:
            words = bytearray(json.dumps(names).encode())
            tensors[f"{name}.identifiers"] = torch.frombuffer(words, dtype=torch.uint8)
    return tensors


def _header(tensors: Mapping[str, Tensor], replaced: Mapping[str, Mapping[str, int]]) -> bytes:
    """The header of a safetensors file: where each array is, and what the file is."""
    entries: dict[str, Any] = {"__metadata__": {"format": FORMAT, "replaced": json.dumps(replaced)}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]
        }  # fmt: skip
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _parts(tensor: Tensor) -> Iterator[memoryview]:
    content = tensor.numpy().reshape(-1).data.cast("B")
    for begin in range(0, len(content), PART):
        yield content[begin : begin + PART]


def _samples(tensors: Mapping[str, Tensor], name: SplitName) -> MultimodalSamples:
    """The samples of a split. Raises KeyError for a missing part, ValueError for an odd one."""
    streams = {modality: tensors[f"{name}.{modality}"] for modality in MODALITIES}
    labels = tensors[f"{name}.label"]
    if any(stream.dtype != torch.float32 or stream.ndim != 3 for stream in streams.values()):
        raise ValueError("a stream of another kind")
    if (labels.dtype, labels.ndim) not in ((torch.float32, 1), (torch.int64, 2)):
        raise ValueError("labels of another kind")
    return MultimodalSamples(streams, labels)


def _names(tensor: Tensor | None) -> list[str]:
    if tensor is None:
        return []
    names: list[str] = json.loads(tensor.numpy().tobytes())
    return names
