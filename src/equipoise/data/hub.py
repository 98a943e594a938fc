"""Opening a dataset of the Hugging Face hub, or a local folder in the same layout."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
from datasets.data_files import DataFilesDict
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError

from equipoise.data.folders import (
    PARQUET,
    folders_in,
    holds_parquet,
    is_local,
    local_folder,
    within,
)
from equipoise.errors import UserError
from equipoise.errors.sizes import check_parquet

REACH_SECONDS = 5.0
LOADING_ERRORS = (DatasetsError, OSError, ValueError)
LOG = logging.getLogger(__name__)


class PublishedSplits(Mapping[str, datasets.Dataset]):
    """The splits of a dataset by name; one that is not requested is never fetched.

    builders: what `datasets` knows of each split. Raises UserError, with the sentence `refusal`, if
    a requested split is not available.
    """

    def __init__(
        self,
        path: str,
        configuration: str | None,
        builders: Mapping[str, datasets.DatasetBuilder],
        refusal: str,
    ) -> None:
        self.path = path
        self.configuration = configuration
        self.builders = builders
        self.refusal = refusal
        self.loaded: dict[str, datasets.Dataset] = {}

    def __iter__(self) -> Iterator[str]:
        """The names of the splits."""
        return iter(self.builders)

    def __len__(self) -> int:
        """The number of splits."""
        return len(self.builders)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a split, without fetching it."""
        return name in self.builders

    def __getitem__(self, name: str) -> datasets.Dataset:
        """A split, fetched when it is first requested."""
        if name not in self.loaded:
            builder = self.builders[name]
            try:
                for file in map(Path, _data_files(builder).get(name, ())):
                    if file.is_file():
                        check_parquet(file)
                if _data_files(builder) and not Path(builder.cache_dir).is_dir():
                    builder = self._alone(name)
                builder.download_and_prepare()
                self.loaded[name] = builder.as_dataset(split=name)
            except UserError:
                raise
            except LOADING_ERRORS as error:
                raise _refused(self.refusal, error) from error
        return self.loaded[name]

    def _alone(self, name: str) -> datasets.DatasetBuilder:
        """A builder of this split, cached separately from copies of the whole dataset.

        `datasets` fetches and caches all splits of a builder together, whichever is requested.
        """
        builder = datasets.load_dataset_builder(
            self.path, self.configuration, cache_dir=str(_single_splits() / name)
        )
        files = {split: paths for split, paths in _data_files(builder).items() if split == name}
        builder.config.data_files = DataFilesDict(files)
        expected = builder.info.splits or {}
        for split in [split for split in expected if split != name]:
            del expected[split]
        builder.info.download_size = builder.info.dataset_size = None  # those of the whole dataset
        return builder


def open_splits(path: str, configuration: str | None = None) -> PublishedSplits:
    """The splits of a hub dataset (or of one configuration) or of a folder of parquet files.

    Only the list of files is fetched until a split is requested. Without a network the copy of an
    earlier download is used. Raises UserError, within seconds, if there is none, or if the folder
    is missing or cannot be read.
    """
    if is_local(path):
        return _open_folder(path)
    return open_from_hub(
        path,
        configuration,
        f"The Hugging Face hub refuses access to {path} ({{}}): accept its licence and log in (hf "
        "auth login), or fetch it and set task.path=<folder>.",
    )


def load_configuration(name: str, configuration: str) -> PublishedSplits:
    """The splits of the configuration of a hub dataset, by name.

    Without a network the copy of an earlier download is used. Raises UserError, within seconds, if
    there is none.
    """
    return open_from_hub(
        name,
        configuration,
        f"The dataset {name} ({configuration}) is not a local folder and the Hugging Face "
        f"hub refuses access to it ({{}}): fetch huggingface.co/datasets/{name} elsewhere and set "
        "task.path=<folder>.",
    )


def open_from_hub(name: str, configuration: str | None, refusal: str) -> PublishedSplits:
    """The splits of a dataset of the hub, or of earlier downloads of it.

    Raises UserError with the sentence `refusal`, in which the cause replaces {}.
    """
    if not _hub_answers(name):
        return PublishedSplits(name, configuration, _downloads(name, configuration), refusal)
    try:
        builder = datasets.load_dataset_builder(name, configuration)
    except LOADING_ERRORS as error:
        raise _refused(refusal, error) from error
    return PublishedSplits(name, configuration, _by_split(builder), refusal)


def _open_folder(path: str) -> PublishedSplits:
    folder = local_folder(path)
    if not holds_parquet(folder):
        raise UserError(
            f"The folder {path} holds no parquet files: "
            "set task.path to a folder with train-*.parquet in it, or to a dataset of the hub."
        )
    refusal = f"The parquet files in {path} cannot be read ({{}}): fetch them again."
    try:
        with _offline():
            builder = datasets.load_dataset_builder(str(folder))
        _check_files(folder, builder)
    except UserError:
        raise
    except LOADING_ERRORS as error:
        raise _refused(refusal, error) from error
    return PublishedSplits(str(folder), None, _by_split(builder), refusal)


def _check_files(folder: Path, builder: datasets.DatasetBuilder) -> None:
    """Raise UserError unless all files are parquet in this folder: its README may name others."""
    for name in (name for files in _data_files(builder).values() for name in files):
        if "://" in name or Path(name).suffix.lower() not in PARQUET:
            raise UserError(f"{folder} names {name}, and only parquet files in it are read")
        within(Path(name), folder)


def _downloads(name: str, configuration: str | None) -> dict[str, datasets.DatasetBuilder]:
    """The splits of earlier downloads, those of whole datasets first; raises UserError if none."""
    builders: dict[str, datasets.DatasetBuilder] = {}
    alone = _single_splits()
    places = [
        None,
        *(str(alone / split) for split in (folders_in(alone) if alone.is_dir() else ())),
    ]
    for place in places:
        try:
            with _offline():
                builder = datasets.load_dataset_builder(name, configuration, cache_dir=place)
        except LOADING_ERRORS as error:
            LOG.info("No earlier download of %s in %s: %s", name, place or "the cache", error)
            continue
        builders = {**_by_split(builder), **builders}
    if not builders:
        raise UserError(
            f"The dataset {name} is not a local folder and the Hugging Face hub cannot be "
            f"reached: fetch huggingface.co/datasets/{name} elsewhere and set task.path=<folder>."
        )
    return builders


def _by_split(builder: datasets.DatasetBuilder) -> dict[str, datasets.DatasetBuilder]:
    """The builder of each split that has files or a cached copy, by the split's name."""
    return {str(name): builder for name in _data_files(builder) or builder.info.splits or {}}


def _data_files(builder: datasets.DatasetBuilder) -> Mapping[str, Any]:
    """The files of each split; empty for a cached copy without a network."""
    return {str(name): files for name, files in (builder.config.data_files or {}).items()}


def _single_splits() -> Path:
    """The cache folder for splits that were fetched individually."""
    return Path(datasets.config.HF_DATASETS_CACHE).expanduser() / "single_splits"


def _hub_answers(name: str) -> bool:
    """Ask once for the dataset, because `datasets` itself retries for half a minute."""
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=REACH_SECONDS)
    except HfHubHTTPError:
        return True  # A refusal is an answer; loading reports what it says.
    except Exception as error:  # The hub client does not wrap transport errors.
        LOG.info("The Hugging Face hub does not answer: %s", error)
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    previous = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = previous


def _refused(refusal: str, error: BaseException) -> UserError:
    cause = str(error.__cause__ or error).strip().split("\n", 1)[0].rstrip(".")
    return UserError(refusal.replace("{}", cause))
