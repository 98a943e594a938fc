"""The record of the user's own code: believed only where this user's key has sealed all of it."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.config import own_code
from equipoise.config.own_code import NO_OWN_CODE, OwnCode, believed, origin, sealed, targets

CONFIG = {"model": {"_target_": "mine.Net", "width": 8}, "solver": {"tol": 1e-3}, "seed": 0}
CHOICES = {"model": "net", "task": "digits"}
CODE = OwnCode(("mine",), ("file:///there/conf",), ("/there",))


@pytest.fixture
def checkpoint(state_of_the_user: Any) -> dict[str, Any]:
    return {"config": CONFIG, "choices": CHOICES, **sealed(CONFIG, CHOICES, CODE)}


def test_a_record_of_ones_own_is_believed(checkpoint: dict[str, Any]) -> None:
    assert believed(json.loads(json.dumps(checkpoint))) == CODE


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["config"]["model"].update(_target_="mine.Other"),
        lambda c: c["config"]["model"].update(width=9),
        lambda c: c["config"].update(callbacks={"a": {"_target_": "subprocess.Popen"}}),
        lambda c: c["choices"].update(model="other"),
        lambda c: c["own_code"]["packages"].append("subprocess"),
        lambda c: c["own_code"].update(config_folders=["file:///elsewhere"]),
        lambda c: c["own_code"].update(import_folders=["/elsewhere"]),
        lambda c: c["own_code"].update(seal="0" * 64),
        lambda c: c["own_code"].update(seal=None),
        lambda c: c["own_code"].update(seal="é"),
        lambda c: c["own_code"].pop("seal"),
        lambda c: c["own_code"].pop("packages"),
        lambda c: c["own_code"].update(packages="mine"),
        lambda c: c["own_code"].update(packages=[["mine"]]),
        lambda c: c.update(own_code=["mine"]),
        lambda c: c.pop("own_code"),
    ],
)
def test_whatever_is_changed_breaks_the_seal(change: Any, checkpoint: dict[str, Any]) -> None:
    changed = copy.deepcopy(checkpoint)
    change(changed)
    assert believed(changed) is NO_OWN_CODE


def test_another_user_believes_nothing(
    checkpoint: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert believed(checkpoint) is NO_OWN_CODE
    assert not any(tmp_path.iterdir())  # reading makes no key
    assert "seal" in sealed(CONFIG, CHOICES, CODE)["own_code"]
    assert believed(checkpoint) is NO_OWN_CODE


def test_the_key_is_the_users_alone_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = sealed(CONFIG, CHOICES, CODE)
    assert own_code.key_file().stat().st_mode & 0o777 == 0o600
    assert [file.name for file in own_code.key_file().parent.iterdir()] == ["key"]
    assert sealed(CONFIG, CHOICES, CODE) == first


def test_without_a_place_for_the_key_a_warning_says_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"will need trust=\[<package>\]: set XDG_STATE_HOME"):
        record = sealed(CONFIG, CHOICES, CODE)
    assert "seal" not in record["own_code"]


def test_nothing_is_recorded_of_a_run_without_own_code() -> None:
    config = {"model": {"_target_": "equipoise.models.MDEQ"}, "o": [{"_target_": "torch.optim.X"}]}
    code = own_code.own_code(config, [])
    assert not code
    assert sealed(config, {}, code) == {}


def test_packages_and_where_they_lie_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_recorded").mkdir()
    (tmp_path / "mine_recorded" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    config = {"a": [{"_target_": "mine_recorded.Net"}], "b": {"_target_": "numpy.ndarray"}}
    code = own_code.own_code(config, ["pkg://mine_recorded.conf"])
    assert code.packages == ("mine_recorded", "numpy")
    assert code.import_folders == (str(tmp_path),)  # numpy is installed
    assert code.config_folders == ("pkg://mine_recorded.conf",)


def test_folders_are_added_behind_all_others_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["/first"])
    own_code.make_importable([str(tmp_path), str(tmp_path), "/nowhere/at/all"])
    own_code.make_importable([str(tmp_path)])
    assert sys.path == ["/first", str(tmp_path)]


def named(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.text(max_size=4), values, max_size=3)


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner) | named(inner), max_leaves=8)


@given(config=named(values), name=st.text(min_size=1))
def test_a_seal_holds_for_its_configuration_and_no_larger_one(
    config: dict[str, Any], name: str
) -> None:
    content = {"config": config, "choices": {}, **sealed(config, {}, CODE)}
    assert believed(content) == CODE
    if name not in config:
        assert believed({**content, "config": {**config, name: 0}}) is NO_OWN_CODE


def test_targets_are_found_at_any_depth() -> None:
    assert list(targets({"a": [{"b": {"_target_": "x.Y"}}], "_target_": "z.W", "c": 3})) == [
        "z.W", "x.Y",
    ]  # fmt: skip


BROKEN = """
def fail(number):
    return deeper(number)


def deeper(number):
    return 1 / number
"""


def test_the_innermost_line_of_own_code_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_failing.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    import mine_failing

    with pytest.raises(ZeroDivisionError) as raised:
        mine_failing.fail(0)
    assert origin(raised.value, ["mine_failing"]) == "mine_failing.py, line 7: "
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert origin(raised.value, ["mine_failing"]) == f"{tmp_path}/mine_failing.py, line 7: "
    assert origin(raised.value, ["other"]) == ""
