"""Where each task looks for its data, and whether they are there; nothing is fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from equipoise.config.about import about
from equipoise.running.surroundings import is_local


class DataPlace(NamedTuple):
    """Where a task looks for its data and what is found there, in words.

    there: None where that depends on the command line. advice: what else can or must be done.
    """

    said: str
    there: bool | None
    advice: str | None = None


def place_of(task: Mapping[str, Any]) -> DataPlace:
    """The place named in a task's file."""
    path, hint = task.get("path"), about(task, "without_path")
    advice = None if hint is None else " ".join(str(hint).split())
    if about(task, "of_checkpoint", False):
        return DataPlace("the data of the checkpoint", None)
    if path is None and advice:
        return DataPlace("needs task.path", False, advice)
    if path is None:
        own = "task.path=<your own> instead" if "path" in task else None
        return DataPlace("bundled or generated", True, own)
    if "${" in str(path):
        return DataPlace(f"task.path={path}", None, advice)
    if about(task, "from_hub", False) and not is_local(str(path)):
        copy = hub_copy(str(path), task.get("configuration"))
        found = "fetched" if copy else "not fetched yet"
        otherwise = str(copy) if copy else "the first run fetches it; or task.path=<folder>"
        return DataPlace(f"hub dataset {path}: {found}", copy is not None, otherwise)
    there = Path(str(path)).expanduser().exists()
    return DataPlace(f"task.path={path}: {'there' if there else 'not there'}", there, advice)


def hub_copy(name: str, configuration: str | None = None) -> Path | None:
    """The folder of an earlier download of a hub dataset, found without importing `datasets`.

    Single splits are downloaded to other folders than whole datasets.
    """
    owner, _, dataset = name.rpartition("/")
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", dataset)
    folder = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", words).lower()
    cache = hub_cache()
    for place in (cache, *sorted(cache.glob("single_splits/*"))):
        copy = place / (f"{owner}___{folder}" if owner else folder) / (configuration or "")
        if copy.is_dir() and any(copy.rglob("dataset_info.json")):
            return copy
    return None


def hub_cache() -> Path:
    """The cache folder of `datasets`, as the environment sets it."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    hub = os.environ.get("HF_HOME") or os.path.join(home, "huggingface")
    place = os.environ.get("HF_DATASETS_CACHE") or os.path.join(hub, "datasets")
    return Path(os.path.expanduser(place))
