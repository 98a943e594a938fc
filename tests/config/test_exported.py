"""The exported folder: a checkpoint's content, read back from two files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.config.exported import is_exported, read_exported, write_exported
from equipoise.config.stored import read_checkpoint, read_stored
from equipoise.errors import UserError


def content(**beside: Any) -> dict[str, Any]:
    weight = torch.arange(6.0).view(2, 3)
    state = {
        "model.a": weight,
        "model.tied": weight,
        "model.view": weight.T,
        "count": torch.tensor(3),
    }
    node = {"_target_": "a.B", "about": {"gives": "image", "wants": "logits"}}
    task = node | {"objective": {}, "monitor": "val/loss", "path": None}
    model = {"_target_": "a.C", "about": {"takes": "image", "gives": ["logits"]}}
    return {
        "state_dict": state | beside,
        "config": {"seed": 0, "task": task, "model": model, "trainer": node, "callbacks": {}},
        "choices": {"task": "digits", "model": "mdeq"},
        "epoch": 2,
        "class_names": ["naïve", "b"],
        "optimizer_states": [{"state": {0: torch.ones(2)}}],
        "carried_memory": {"train": torch.ones(2)},
    }


def test_all_but_what_only_training_reads_comes_back(tmp_path: Path) -> None:
    kept = content(_extra_state={"vocabulary": {"symbols": ["a", "b"]}})
    write_exported(kept, tmp_path, {"versions": {"torch": "2"}})
    assert is_exported(tmp_path)
    read = read_checkpoint(tmp_path)
    state = read["state_dict"]
    assert state["_extra_state"] == {"vocabulary": {"symbols": ["a", "b"]}}
    for name in ("model.a", "model.tied", "model.view", "count"):
        assert torch.equal(state[name], kept["state_dict"][name])
        assert state[name].dtype == kept["state_dict"][name].dtype
    for key in ("config", "choices", "epoch", "class_names"):
        assert read[key] == kept[key]
    assert not {"optimizer_states", "carried_memory"} & set(read)
    assert read["versions"] == {"torch": "2"}


def test_a_folder_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    write_exported(content(), tmp_path, {})
    assert read_stored(tmp_path).epochs == 2
    write_exported(content() | {"epoch": 11}, tmp_path, {})
    assert read_stored(tmp_path).epochs == 11


def test_numbers_of_a_run_beside_the_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="objects of the run in survey"):
        write_exported(content(survey={"counts": torch.ones(3)}), tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_told_in_a_sentence(file: str, tmp_path: Path) -> None:
    write_exported(content(), tmp_path, {})
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot be read \(.*\): export or fetch it again"):
        read_checkpoint(tmp_path)


def test_a_folder_of_another_library_is_told(tmp_path: Path) -> None:
    write_exported(content(), tmp_path, {})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="was not written by python -m equipoise export"):
        read_exported(tmp_path)
