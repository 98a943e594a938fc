"""Opening one configuration of a dataset of the hub that has several."""

from __future__ import annotations

from equipoise.data.hub_dataset import PublishedSplits, open_from_hub


def load_configuration(name: str, configuration: str) -> PublishedSplits:
    """Return the splits of the configuration of a hub dataset, by name.

    Without a network the copy that an earlier download left is used. Raises UserError, within
    seconds, when there is none.
    """
    return open_from_hub(
        name,
        configuration,
        f"The dataset {name} ({configuration}) is no folder on this machine and the Hugging Face "
        f"hub does not hand it out ({{}}): fetch huggingface.co/datasets/{name} elsewhere and set "
        "task.path=<folder>.",
    )
