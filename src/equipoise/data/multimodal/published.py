"""The published layout of a set of language, audio and vision, checked and prepared."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.data.module import SPLITS, SplitName
from equipoise.data.multimodal.module import MODALITIES, MultimodalSamples
from equipoise.data.multimodal.pickled_arrays import Array, of_type
from equipoise.data.multimodal.published_pickle import read_pickle
from equipoise.errors import UserError

NonFinite = Literal["published", "zero"]
Shapes = dict[str, tuple[int, int]]

SPLIT_KEYS: dict[SplitName, str] = {"train": "train", "val": "valid", "test": "test"}
KEYS = {"language": "text", "audio": "audio", "vision": "vision"}
LABELS, IDENTIFIERS = "labels", "id"
EMOTIONS = 4
BLOCK = 1 << 22  # numbers that are looked at together
FETCH = "fetch the published file again, or correct it"


@dataclass(frozen=True, eq=False)
class PublishedSet:
    """All splits of a file, the names of the samples if it has any, and what was replaced by 0."""

    splits: Mapping[SplitName, MultimodalSamples]
    identifiers: Mapping[SplitName, list[str]]
    replaced: Mapping[str, Mapping[str, int]]

    @property
    def emotions(self) -> int:
        """How many emotions a label has; 0 if it is a sentiment score."""
        labels = self.splits["train"].labels
        return 0 if labels.ndim == 1 else labels.shape[1]

    @property
    def shapes(self) -> Shapes:
        """Steps and width of each modality."""
        return shapes_of(self.splits["train"].streams)


class Place(NamedTuple):
    """An array of a file, as named in an error message about it."""

    file: Path
    split: SplitName
    key: str

    def refusal(self, problem: str, advice: str = FETCH) -> UserError:
        """The error with that message."""
        return UserError(
            f"{self.file}: '{self.key}' of '{SPLIT_KEYS[self.split]}' {problem}: {advice}"
        )


def shapes_of(streams: Mapping[str, Tensor]) -> Shapes:
    """Steps and width of each modality."""
    return {name: (streams[name].shape[1], streams[name].shape[2]) for name in MODALITIES}


def read_published(file: Path, non_finite: NonFinite) -> PublishedSet:
    """Read a published pickle: {"train" | "valid" | "test": {"text", "audio", "vision", "labels"}}.

    The streams are (N, T, F), the labels (N, 1, 1) scores or (N, 4, 2), whether each emotion is
    absent or present; "id" may name the samples. non_finite: "published" replaces -inf in audio by
    0, as the authors do, and refuses all other values that are not finite; "zero" replaces those as
    well. The arrays become float32 one by one, so that memory never holds a second copy of all.

    Raises UserError, naming split and modality, if something is missing or does not fit.
    """
    content = _mapping(read_pickle(file), f"{file} holds no splits but")
    splits: dict[SplitName, MultimodalSamples] = {}
    identifiers: dict[SplitName, list[str]] = {}
    replaced: dict[str, dict[str, int]] = {}
    for key in SPLIT_KEYS.values():
        if key not in content:
            found = ", ".join(content) or "nothing"
            raise UserError(f"{file} has no split '{key}', only {found}: {FETCH}")
    for name in SPLITS:
        key = SPLIT_KEYS[name]
        arrays = _mapping(content.pop(key), f"{file}: the split '{key}' holds no arrays but")
        streams, replaced[name] = _streams(arrays, file, name, non_finite)
        labels = _labels(_taken(arrays, Place(file, name, LABELS)), Place(file, name, LABELS))
        splits[name] = MultimodalSamples(streams, labels)
        identifiers[name] = _identifiers(arrays.get(IDENTIFIERS), Place(file, name, IDENTIFIERS))
        check_split(splits, name, len(identifiers[name]), file)
    return PublishedSet(splits, identifiers, replaced)


def check_split(
    splits: Mapping[SplitName, MultimodalSamples], name: SplitName, names: int, file: Path
) -> None:
    """Raise UserError if a split is empty, uneven in size, or different from the training split.

    names: how many of its samples have a name; 0 if none do.
    """
    samples, split = splits[name], SPLIT_KEYS[name]
    counts = {KEYS[n]: len(stream) for n, stream in samples.streams.items()}
    counts |= {LABELS: len(samples.labels)} | ({IDENTIFIERS: names} if names else {})
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{key} {count:,}" for key, count in counts.items())
        raise UserError(f"{file}: the samples of '{split}' differ in number, {listed}: {FETCH}")
    if not len(samples):
        raise UserError(f"{file}: the split '{split}' has no samples: {FETCH}")
    train, here = shapes_of(splits["train"].streams), shapes_of(samples.streams)
    for modality in MODALITIES:
        if here[modality] != train[modality]:
            sizes = ["{} steps of {} features".format(*of[modality]) for of in (here, train)]
            problem = f"has {sizes[0]}, that of 'train' {sizes[1]}"
            raise Place(file, name, KEYS[modality]).refusal(problem)
    if samples.labels.shape[1:] != splits["train"].labels.shape[1:]:
        raise Place(file, name, LABELS).refusal("has labels of another shape than 'train'")


def _mapping(value: Any, problem: str) -> dict[str, Any]:
    """The dictionary with its keys as text; it is emptied, so that its arrays can be freed."""
    if not isinstance(value, dict):
        kind = "an array" if isinstance(value, Array) else f"a {type(value).__name__}"
        raise UserError(f"{problem} {kind}: {FETCH}")
    named = {k.decode("latin-1") if isinstance(k, bytes) else str(k): v for k, v in value.items()}
    value.clear()
    return named


def _taken(arrays: dict[str, Any], place: Place) -> NDArray[Any]:
    """Take an array of numbers out of a split. Raises UserError if there is none."""
    if place.key not in arrays:
        raise place.refusal(f"is missing; there is {', '.join(arrays) or 'nothing'}")
    value = arrays.pop(place.key)
    if not isinstance(value, Array):
        raise place.refusal(f"is no array of numbers but a {type(value).__name__}")
    if value.array.dtype.kind not in "biuf":
        raise place.refusal("is an array of text, not of numbers")
    return value.array


def _streams(
    arrays: dict[str, Any], file: Path, name: SplitName, non_finite: NonFinite
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The streams of a split, and how many values of each were replaced."""
    streams, replaced = {}, {}
    for modality in MODALITIES:
        place = Place(file, name, KEYS[modality])
        array = _taken(arrays, place)
        if array.ndim != 3 or 0 in array.shape[1:]:
            raise place.refusal(
                f"has the shape {list(array.shape)}, not [samples, steps, features]"
            )
        with np.errstate(over="ignore"):  # what exceeds float32 becomes infinite, and is counted
            numbers = np.ascontiguousarray(array, dtype=np.float32)
        del array
        numbers, replaced[modality] = _finite(numbers, place, non_finite)
        streams[modality] = _tensor(numbers)
    return streams, replaced


def _finite(
    numbers: NDArray[np.float32], place: Place, non_finite: NonFinite
) -> tuple[NDArray[np.float32], int]:
    """The numbers with 0 for replaceable values, and how many were replaced."""
    found = _not_finite(numbers)
    allowed = {"NaN", "inf", "-inf"} if non_finite == "zero" else {"-inf"}
    if non_finite == "published" and place.key != "audio":
        allowed = set()
    refused = [
        f"{count:,} {kind}" for kind, count in found.items() if count and kind not in allowed
    ]
    if refused:
        raise place.refusal(
            f"has values that are not finite ({', '.join(refused)})",
            "set task.non_finite=zero (convert-multimodal --non-finite zero) to read them as 0",
        )
    count = sum(found.values())
    if count:
        if not numbers.flags.writeable:  # the bytes that were read
            numbers = numbers.copy()
        for block in _blocks(numbers):
            block[~np.isfinite(block)] = 0
    return numbers, count


def _not_finite(numbers: NDArray[np.float32]) -> dict[str, int]:
    counts = {"NaN": 0, "inf": 0, "-inf": 0}
    for block in _blocks(numbers):
        odd = block[~np.isfinite(block)]
        counts["NaN"] += int(np.isnan(odd).sum())
        counts["inf"] += int((odd == np.inf).sum())
        counts["-inf"] += int((odd == -np.inf).sum())
    return counts


def _blocks(numbers: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Views of parts of the numbers, so that no array as large as all of them is allocated."""
    flat = numbers.reshape(-1)
    return [flat[begin : begin + BLOCK] for begin in range(0, flat.size, BLOCK)]


def _labels(array: NDArray[Any], place: Place) -> Tensor:
    """Scores (N,), or whether each emotion is present (N, 4)."""
    if not np.isfinite(array).all():
        raise place.refusal(f"has {int((~np.isfinite(array)).sum()):,} values that are not finite")
    if array.shape[1:] == (1, 1):
        return torch.from_numpy(array.reshape(-1).astype(np.float32))
    if array.shape[1:] == (EMOTIONS, 2):
        return torch.from_numpy(array.argmax(axis=-1).astype(np.int64))
    raise place.refusal(
        f"has the shape {list(array.shape)}, not [samples, 1, 1] or [samples, {EMOTIONS}, 2]"
    )


def _identifiers(value: Any, place: Place) -> list[str]:
    """The names of the samples, each in one line; empty if the file has none."""
    rows = value.array.tolist() if isinstance(value, Array) else value
    if not isinstance(rows, list):
        return []
    try:
        return [" ".join(map(_word, _words(row))) for row in rows]
    except TypeError as error:
        raise place.refusal("has names that are neither text nor numbers") from error


def _words(row: Any) -> Any:
    """The parts of a name, such as the video and its start and end in seconds."""
    entries = row.array.tolist() if isinstance(row, Array) else row
    return entries if isinstance(entries, list | tuple) else [entries]


def _word(value: Any) -> str:
    """Raises TypeError for a container, whose text might be endless."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else str(of_type(value, int | float))


def _tensor(numbers: NDArray[np.float32]) -> Tensor:
    """A tensor over the same memory, which nobody writes to, without torch's warning about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(numbers)
