"""Opening one configuration of a dataset of the hub that has several."""

from __future__ import annotations

import datasets
from datasets.exceptions import DatasetsError

from equipoise.data.hub_dataset import _first_line, _hub_answers, _offline
from equipoise.errors import UserError


def load_configuration(name: str, configuration: str) -> dict[str, datasets.Dataset]:
    """Return the splits of the configuration of a hub dataset, by name.

    Without a network the copy that an earlier download left is used. Raises UserError, within
    seconds, when there is none.
    """
    try:
        if _hub_answers(name):
            splits = datasets.load_dataset(name, configuration)
        else:
            with _offline():
                splits = datasets.load_dataset(name, configuration)
    except (DatasetsError, OSError, ValueError) as error:
        raise UserError(
            f"The dataset {name} ({configuration}) is no folder on this machine and the Hugging "
            f"Face hub does not hand it out ({_first_line(error)}): fetch "
            f"huggingface.co/datasets/{name} elsewhere and set task.path=<folder>."
        ) from error
    return {str(split): table for split, table in splits.items()}
