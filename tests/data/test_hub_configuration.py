"""A configuration of a hub dataset: the splits by name, or one sentence."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from equipoise.data import hub_dataset
from equipoise.data.hub_configuration import load_configuration
from equipoise.errors import UserError

CARD = """---
configs:
- config_name: small
  data_files: small.parquet
- config_name: large
  data_files: large.parquet
---
"""


def test_the_configuration_is_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_dataset, "_hub_answers", lambda name: False)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "README.md").write_text(CARD)
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    for name in ("small", "large"):
        table = datasets.Dataset.from_dict({"text": [name]})
        table.to_parquet(str(tmp_path / "text" / f"{name}.parquet"))
    for name in ("small", "large"):
        datasets.load_dataset(str(tmp_path / "text"), name)
    (cache / "text").rename(cache / "owner___text")
    assert load_configuration("owner/text", "small")["train"]["text"] == ["small"]


def test_a_refusal_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*names: str) -> datasets.DatasetBuilder:
        raise ValueError("BuilderConfig 'small' not found.")

    monkeypatch.setattr(hub_dataset, "_hub_answers", lambda name: True)
    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    with pytest.raises(UserError, match=r"not found\): fetch .*owner/text elsewhere and set"):
        load_configuration("owner/text", "small")
