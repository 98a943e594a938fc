"""The user's own translations in a folder, and published ones from the hub or a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from equipoise.data.folders import expanded, holds_parquet, is_local, local_folder, required_path
from equipoise.data.hub import open_splits
from equipoise.data.module import SPLITS, SplitName, check_fraction
from equipoise.data.sampling import stream
from equipoise.data.text.files import PUBLISHED_NAMES, Stamp, stamp
from equipoise.data.text.parallel import ParallelDataModule
from equipoise.data.text.sentence_pairs import ParallelCorpus, SentencePairs
from equipoise.data.text.stored_pairs import (
    StoredSplit,
    TableRows,
    chosen_languages,
    read_pairs,
    stored_split,
)
from equipoise.errors import UserError

LAYOUT = "train.jsonl with two languages a line, or two files of lines such as train.de, train.en"
WITHOUT_PATH = (
    f"task=parallel_folder needs translations of your own: set task.path to a folder with {LAYOUT}."
)


@dataclass(kw_only=True, eq=False)
class ParallelFolder(ParallelDataModule):
    """A folder with train, validation and test, each as .jsonl or as two files of lines.

    path: the folder. Without validation, `val_fraction` of the training pairs, drawn by the seed,
    are held out; without test, test is validation.
    """

    path: str | None = None
    batch_size: int = 128
    batch_tokens: int = 4096
    max_length: int = 128
    subwords: int = 4000
    val_fraction: float = 0.05

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        check_fraction("val_fraction", self.val_fraction)

    def read_corpus(self) -> ParallelCorpus:
        """Read the folder; raises UserError if it has no pairs."""
        place = required_path(self.path, WITHOUT_PATH)
        return read_folder(place, self.source, self.target, (self.val_fraction, self.seed))


@dataclass(kw_only=True, eq=False)
class PublishedTranslations(ParallelDataModule):
    """A published corpus: a dataset of the hub, or a folder as `ParallelFolder` reads it.

    path: its name on the hub, or the folder, which may also hold the hub's parquet files. It must
    have a validation split; without a test split, test is validation.
    """

    path: str
    source: str = "de"
    target: str = "en"

    def read_corpus(self) -> ParallelCorpus:
        """Read the three splits; raises UserError if one is not available."""
        if is_local(self.path) and not holds_parquet(_folder(self.path)):
            return read_folder(self.path, self.source, self.target, None)
        return hub_corpus(self.path, self.source, self.target)


def read_folder(
    path: str, source: str | None, target: str | None, held_out: tuple[float, int] | None
) -> ParallelCorpus:
    """The corpus of a folder; held_out: fraction and seed of a missing validation split."""
    folder = _folder(path)
    stored = [stored_split(folder, name) for name in SPLITS]
    files = [file for split in stored if split is not None for file in split.files]
    return folder_corpus(folder, stamp(files), source, target, held_out)


@lru_cache(maxsize=1)
def folder_corpus(
    folder: Path,
    _stamp: Stamp,
    source: str | None,
    target: str | None,
    held_out: tuple[float, int] | None,
) -> ParallelCorpus:
    """The corpus of a folder; the latest one is kept. Raises UserError if it has no pairs."""
    stored = {name: stored_split(folder, name) for name in SPLITS}
    found: dict[SplitName, StoredSplit] = {n: s for n, s in stored.items() if s is not None}
    required: tuple[SplitName, ...] = ("train",) if held_out else ("train", "val")
    for name in required:
        if name not in found:
            word = PUBLISHED_NAMES[name][0]
            raise UserError(
                f"The folder {folder} has no pairs for {name}: put {LAYOUT.replace('train', word)} "
                "there, or set task.path to another folder."
            )
    return _corpus(found, source, target, held_out)


@lru_cache(maxsize=1)
def hub_corpus(path: str, source: str, target: str) -> ParallelCorpus:
    """The corpus of a dataset of the hub or of a folder of parquet files; the latest is kept."""
    tables = open_splits(path)
    found: dict[SplitName, StoredSplit] = {}
    for name in SPLITS:
        published = [word for word in PUBLISHED_NAMES[name] if word in tables]
        if published:
            found[name] = TableRows(tables[published[0]], f"the split '{published[0]}' of {path}")
        elif name != "test":
            raise UserError(
                f"{path} has no split for {name}, only {', '.join(tables)}: set task.path to a "
                "dataset that has one."
            )
    return _corpus(found, source, target, None)


def divided(train: SentencePairs, fraction: float, seed: int) -> dict[SplitName, SentencePairs]:
    """Hold out a fraction of the training pairs, at least one, as validation; nothing for 0.

    Raises UserError if that leaves nothing to train on.
    """
    if not fraction:
        return {}
    count = max(round(fraction * len(train)), 1)
    if count >= len(train):
        raise UserError(
            f"{train.place} has too few pairs ({len(train)}) to hold out task.val_fraction="
            f"{fraction} of them: lower it, or give more."
        )
    order = torch.randperm(len(train), generator=stream(seed))
    held_out, kept = (rows.sort().values.tolist() for rows in order.tensor_split([count]))
    return {
        "train": train.at(kept, empty=train.empty),
        "val": train.at(held_out, f"{train.place} (held out)"),
    }


def _corpus(
    found: Mapping[SplitName, StoredSplit],
    source: str | None,
    target: str | None,
    held_out: tuple[float, int] | None,
) -> ParallelCorpus:
    """The splits that were found; a missing test is validation, or train if both are missing."""
    languages = chosen_languages(found["train"], source, target)
    splits = {name: read_pairs(name, split, languages) for name, split in found.items()}
    if "val" not in splits and held_out is not None:
        splits |= divided(splits["train"], *held_out)
    splits.setdefault("val", splits.get("test", splits["train"]))
    splits.setdefault("test", splits["val"])
    return ParallelCorpus(languages, splits)


def _folder(path: str) -> Path:
    """The folder of the pairs. Raises UserError if the path is not a folder."""
    if expanded(path).is_file():
        raise UserError(f"{path} is a file: set task.path to a folder with {LAYOUT}.")
    return local_folder(path)
