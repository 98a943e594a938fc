"""A checkpoint whose contents are malformed is refused in one sentence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.config.compose import compose, storable
from equipoise.config.recompose import recompose
from equipoise.config.stored import (
    finished_epochs,
    in_present_form,
    read_checkpoint,
    read_content,
    read_stored,
    stored_run,
)
from equipoise.errors import UserError
from equipoise.running.anytime import AnytimeCurve
from equipoise.running.api import check_trust, instantiate_curve

COMPOSITION = compose([])
CONFIG = storable(COMPOSITION.config)


def content(**changed: Any) -> dict[str, Any]:
    whole = {
        "config": copy.deepcopy(CONFIG),
        "choices": dict(COMPOSITION.choices),
        "state_dict": {"w": torch.zeros(2, 3), "_extra_state": {"count": 1}},
        "epoch": 3,
        "global_step": 40,
    }
    return whole | changed


def config(**changed: Any) -> dict[str, Any]:
    return {"config": content()["config"] | changed}


def without(key: str) -> dict[str, Any]:
    found = content()["config"]
    del found[key]
    return {"config": found}


def told(**changed: Any) -> dict[str, Any]:
    model = content()["config"]["model"]
    return config(model=model | {"about": model["about"] | changed})


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def wide() -> list[Any]:
    """A list that holds itself twice: endless, whichever way one goes."""
    found: list[Any] = []
    found += [found, found]
    return found


def test_what_a_run_writes_is_read() -> None:
    stored = stored_run(content(), "last.ckpt")
    assert (stored.epochs, stored.steps) == (3, 40)
    assert stored.shapes == {"w": (2, 3)}
    assert stored.choices["task"] == "digits"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"config": None}, "config is not a mapping"),
        ({"config": [1]}, "config is not a mapping"),
        ({"config": {1: 2}}, "config is not a mapping"),
        ({"config": {}}, "no task"),
        ({"choices": None}, "choices are not a mapping"),
        ({"choices": {"task": 1, "model": "mdeq"}}, "choices are not a mapping"),
        ({"choices": {"task": "digits"}}, "no task and model"),
        ({"state_dict": [1]}, "state_dict is not a mapping"),
        ({"epoch": "three"}, "epoch is not a whole number"),
        ({"epoch": True}, "epoch is not a whole number"),
        ({"global_step": -1}, "global_step is not a whole number"),
        ({"global_step": None}, "global_step is not a whole number"),
        (config(task="digits"), "no task with a _target_"),
        (config(model={}), "no model with a _target_"),
        (without("trainer"), "no trainer with a _target_"),
        (config(task={"_target_": "equipoise.data.Digits"}), r"no task\.objective"),
        (config(model={"_target_": "equipoise.models.MDEQ"}), r"model\.about\.takes is missing"),
        (told(takes=3), r"model\.about\.takes is not of type str \| list\[str\]"),
        (told(least={"attribute": "two"}), r"model\.about\.least is not of type dict\[str, int\]"),
        (told(wieghts=False), r"model\.about\.wieghts is not known; did you mean weights\?"),
        (config(callbacks=[1]), r"config\.callbacks is not a mapping"),
        (config(optimizer="adam"), r"config\.optimizer is not a mapping"),
        (config(seed="one"), r"config\.seed is not a whole number"),
        (without("seed"), r"config\.seed is not a whole number"),
        (config(extra=nested(40)), "nested deeper than 32"),
        (config(extra=nested(100_000)), "nested deeper than 32"),
        (config(extra=wide()), "nested deeper than 32"),
        (config(extra=list(range(200_000))), "over 100,000 values"),
        (config(extra={1: 2}), "a key that is not a text"),
        (config(extra=torch.zeros(2)), "holds a Tensor"),
        (config(extra="${oc.env:HOME}"), "which a stored configuration never does"),
    ],
)
def test_what_is_malformed_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        stored_run(content(**changed), "last.ckpt")
    assert "\n" not in str(caught.value)
    assert "last.ckpt" in str(caught.value)


@pytest.mark.parametrize(("is_last", "finished"), [(True, 15), (False, 14), (None, 14)])
def test_an_epoch_is_finished_with_its_last_batch(is_last: bool | None, finished: int) -> None:
    progress = {} if is_last is None else {"is_last_batch": is_last}
    loops = {"fit_loop": {"epoch_loop.batch_progress": progress}}
    assert finished_epochs({"epoch": 14, "loops": loops}) == finished
    assert finished_epochs({"epoch": 14}) == 14
    assert finished_epochs({"epoch": 14, "loops": "many"}) == 14


def plain_before(node: dict[str, Any]) -> dict[str, Any]:
    """A node as revisions before `about:` stored it."""
    new = ("settings", "data", "counts", "from_data")
    entries = {key: value for key, value in node["about"].items() if key not in new}
    for end in ("least", "most"):
        if end in entries:
            entries[f"{end}_attributes"] = entries.pop(end)["attribute"]
    return {key: value for key, value in node.items() if key != "about"} | entries


@pytest.mark.parametrize(
    "typed",
    [
        "task=digits model=mdeq gradient=shine",
        "task=imagenet model=resnet",
        "task=cityscapes gradient=jfb regularizer=correction",
        "task=python_docs model=trellisnet",
        "task=range_query model=hdg task.domain=[8,8]",
        "task=range_query model=dht",
    ],
)
def test_what_revisions_before_about_have_stored_is_brought_to_the_present_form(typed: str) -> None:
    config = storable(compose(typed.split()).config)
    for group, later in (("model", "initial"), ("task", "licence")):  # which they did not tell
        config[group]["about"].pop(later, None)
    before = copy.deepcopy(config)
    for group in ("task", "model", "gradient", "regularizer"):
        if "about" in (config[group] or {}):
            before[group] = plain_before(config[group])
    assert "about" not in before["task"]
    assert in_present_form(before) == in_present_form(config) == config


def test_a_class_that_has_moved_is_found_under_its_old_name(tmp_path: Path) -> None:
    old = {"_target_": "equipoise.anytime.AnytimeCurve", "budgets": [2], "starts": ["zero"]}
    torch.save(content(**config(anytime=old)), tmp_path / "last.ckpt")
    composition = recompose(read_stored(tmp_path / "last.ckpt"), [], "evaluate")
    check_trust(composition)
    assert instantiate_curve(composition) == AnytimeCurve([2], ["zero"])


def test_a_file_is_read_anew_once_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    torch.save(content(), file)
    first = read_stored(file)
    assert read_stored(file) is first
    torch.save(content(global_step=41, more=torch.zeros(10)), file)
    assert read_stored(file).steps == 41


def test_a_missing_file_is_answered_with_one_that_lies_there(tmp_path):
    torch.save({}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"no checkpoint at .*; did you mean .*last\.ckpt"):
        read_checkpoint(tmp_path / "lost.ckpt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"words"])
def test_a_broken_file_is_called_a_checkpoint_that_cannot_be_read(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"the checkpoint .* cannot be read"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_foreign_file_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="not written by Equipoise"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_what_was_saved_comes_back(tmp_path):
    saved = {"state_dict": {"w": torch.ones(2)}, "config": {"seed": 0}, "choices": {"task": "x"}}
    torch.save(saved, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["config"] == {"seed": 0}


def test_a_checkpoint_may_be_long_and_is_not_deep_for_it(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(20_000)]  # in many instructions for one list
    sizes = {word: len(word) for word in words}
    key = ((((1,), 2), 3), 4)
    torch.save({key: torch.ones(2), "words": words, "sizes": [sizes] * 3}, tmp_path / "a.ckpt")
    read = read_content(tmp_path / "a.ckpt")
    assert (read["words"], read["sizes"]) == (words, [sizes] * 3)
    assert torch.equal(read[key], torch.ones(2))
