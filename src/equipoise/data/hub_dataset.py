"""Opening a dataset of the Hugging Face hub, or a local folder in the same layout."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import huggingface_hub
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError

from equipoise.errors import UserError

REACH_SECONDS = 5.0
LOG = logging.getLogger(__name__)


def is_local(path: str) -> bool:
    """Tell whether `path` names a folder of this machine and not a dataset `owner/name`."""
    written_as_folder = path.startswith((".", "/", "~")) or path.count("/") > 1 or "\\" in path
    return written_as_folder or Path(path).exists()


def local_folder(path: str) -> Path:
    """Return the folder that `path` names; raises UserError when there is none."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"The folder {path} does not exist: set task.path to the dataset's folder.")
    return folder


def holds_parquet(folder: Path) -> bool:
    """Tell whether the folder, or one directly in it, has parquet files."""
    return any(folder.glob("*.parquet")) or any(folder.glob("*/*.parquet"))


def load_splits(path: str) -> dict[str, datasets.Dataset]:
    """Return the splits of a hub dataset or of a folder of parquet files, by name.

    Without a network the copy that an earlier download left is used. Raises UserError, within
    seconds, when there is none, when the folder is missing or when it cannot be read.
    """
    splits = _load_folder(path) if is_local(path) else _load_from_hub(path)
    return {str(name): split for name, split in splits.items()}


def _load_folder(path: str) -> datasets.DatasetDict:
    folder = local_folder(path)
    if not holds_parquet(folder):
        raise UserError(
            f"The folder {path} holds no parquet files: "
            "set task.path to a folder with train-*.parquet in it, or to a dataset of the hub."
        )
    try:
        return datasets.load_dataset(str(folder))
    except (DatasetsError, OSError, ValueError) as error:
        reason = _first_line(error.__cause__ or error)
        raise UserError(
            f"The parquet files in {path} cannot be read ({reason}): fetch them again."
        ) from error


def _load_from_hub(name: str) -> datasets.DatasetDict:
    if not _hub_answers(name):
        return _load_earlier_download(name)
    try:
        return datasets.load_dataset(name)
    except (DatasetsError, OSError, ValueError) as error:
        raise UserError(
            f"The Hugging Face hub does not hand out {name} ({_first_line(error)}): accept its "
            "licence and log in (hf auth login), or fetch it and set task.path=<folder>."
        ) from error


def _load_earlier_download(name: str) -> datasets.DatasetDict:
    try:
        with _offline():
            return datasets.load_dataset(name)
    except (DatasetsError, OSError, ValueError) as error:
        raise UserError(
            f"The dataset {name} is no folder on this machine and the Hugging Face hub cannot be "
            f"reached: fetch huggingface.co/datasets/{name} elsewhere and set task.path=<folder>."
        ) from error


def _hub_answers(name: str) -> bool:
    """Ask once for the dataset, because `datasets` itself retries for half a minute."""
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=REACH_SECONDS)
    except HfHubHTTPError:
        return True  # A refusal is an answer, and loading tells what it says.
    except Exception as error:  # The errors of the transport are not the hub client's own.
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


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".")
