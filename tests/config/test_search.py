"""A search's file and the command line together: its settings, and what is typed of its space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from equipoise.config import search
from equipoise.config.search import (
    SWEEPER,
    Search,
    check_optuna,
    search_of,
    storage_place,
    study_name,
    with_search,
)
from equipoise.errors import UserError


def drawn(*lines: str) -> list[str]:
    """What is added to the typed words."""
    found = with_search(lines)
    assert found[len(found) - len(lines) :] == list(lines)
    return found[: len(found) - len(lines)]


@pytest.mark.parametrize(
    ("words", "interval"),
    [
        ([], "0.00045,0.045"),
        (["model=resnet"], "0.0003,0.03"),
        (["optimizer=sgd"], "0.005,0.5"),
    ],
)
def test_the_learning_rate_is_searched_around_that_of_the_task(
    words: list[str], interval: str
) -> None:
    assert drawn("sweep=optuna", *words) == [SWEEPER, f"optimizer.lr=tag(log,interval({interval}))"]


def test_what_is_typed_replaces_an_entry_or_adds_to_the_space() -> None:
    assert drawn("sweep=optuna", "optimizer.lr=1e-3,1e-2") == [SWEEPER]
    assert drawn("sweep=optuna_solver", "gradient=jfb", "seed=1,2") == [
        SWEEPER, "solver=anderson,broyden,fixed_point", "solver.damping=interval(0.4, 1.0)",
        "solver.mixing=interval(0.4, 1.0)", "gradient.damping=interval(0.2, 1.0)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep=optuna", "optimizer.lr=1e-3"], "the search has no space"),
        (["sweep=optuna", "optimizer.lr=0"], "the search has no space"),
        (["sweep=optuna", "sweep.trials=0"], "sweep.trials=0 must be a whole number from 1"),
        (["sweep=optuna", "sweep.trials=2.5"], "sweep.trials=2.5 must be a whole number"),
        (["sweep=optuna", "sweep.seed=-1"], "sweep.seed=-1 must be a whole number"),
        (["sweep=optuna", "sweep.trial=3"], "did you mean trials?"),
        (["sweep=optuna", "sweep.trials=3,4"], "one value for each of its own settings"),
        (["sweep=optunas"], "did you mean"),
        (["sweep=optuna", "hydra/sweeper=basic"], "has its own sweeper: leave it out"),
    ],
)
def test_settings_that_cannot_work_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        with_search(words)
    assert said in str(caught.value)


def test_a_sweep_without_a_space_is_no_search() -> None:
    assert search_of(["sweep=kernel_table"]) is None
    assert with_search(["sweep=kernel_table", "seed=1,2"]) == ["sweep=kernel_table", "seed=1,2"]


def settings_of(**changed: str) -> Search:
    return replace(Search(1, None, "tpe", "none", "journal", None, 0, {}), **changed)


def test_a_study_is_in_the_folder_unless_a_url_is_given() -> None:
    folder = Path("multirun/mine")
    for storage, place, name in (
        ("journal", "multirun/mine/search.journal", "search"),
        ("sqlite", "sqlite:///multirun/mine/search.db", "search"),
        ("sqlite:///all.db", "sqlite:///all.db", "mine"),
    ):
        search = settings_of(storage=storage)
        assert (storage_place(search, folder), study_name(search, folder)) == (place, name)
    assert study_name(settings_of(storage="sqlite:///all.db", study="lr"), folder) == "lr"
    with pytest.raises(UserError, match="neither journal nor sqlite nor a URL"):
        storage_place(settings_of(storage="jurnal"), folder)


def test_without_optuna_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'equipoise\[sweep\]'"):
        check_optuna()
