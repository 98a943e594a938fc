"""A configuration of a hub dataset: the splits by name, or one sentence."""

from __future__ import annotations

import datasets
import pytest

from equipoise.data import hub_configuration
from equipoise.errors import UserError


def test_the_configuration_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    table = datasets.Dataset.from_dict({"text": ["a"]})
    asked: list[tuple[str, ...]] = []

    def load(*names: str) -> datasets.DatasetDict:
        asked.append(names)
        return datasets.DatasetDict({"train": table})

    monkeypatch.setattr(hub_configuration, "_hub_answers", lambda name: True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    splits = hub_configuration.load_configuration("owner/text", "small")
    assert asked == [("owner/text", "small")]
    assert splits["train"]["text"] == ["a"]


def test_a_refusal_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*names: str) -> datasets.DatasetDict:
        raise ValueError("BuilderConfig 'small' not found.")

    monkeypatch.setattr(hub_configuration, "_hub_answers", lambda name: True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=r"not found\): fetch .*owner/text elsewhere and set"):
        hub_configuration.load_configuration("owner/text", "small")
