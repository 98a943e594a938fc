"""The group `anytime` on the command line: what it composes to, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.config.checks import check_curve_on_model
from equipoise.config.compose import compose
from equipoise.errors import UserError
from equipoise.running.anytime import AnytimeCurve
from equipoise.running.api import checked, execute, instantiate_curve


def test_the_choice_builds_the_default_curve_and_typed_values_change_it() -> None:
    assert instantiate_curve(compose([])) is None
    default = instantiate_curve(compose(["anytime=curve"]))
    assert default is not None
    assert list(default.budgets) == list(AnytimeCurve().budgets)
    assert list(default.starts) == list(AnytimeCurve().starts)
    typed = ["anytime=curve", "anytime.budgets=[2,3]", "anytime.starts=[model]", "anytime.seed=4"]
    assert instantiate_curve(compose(typed)) == AnytimeCurve([2, 3], ["model"], 4)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["anytime=curves"], "did you mean curve"),
        (["anytime=curve", "anytime.budget=[4]"], "did you mean anytime.budgets"),
        (["anytime=curve", "anytime.budgets=4"], "must be a list"),
        (["anytime.budgets=[4]"], "no setting 'anytime.budgets' in anytime=none"),
    ],
)
def test_what_is_misspelt_is_refused(typed: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        compose(typed)


def test_wrong_values_are_refused_with_what_is_right() -> None:
    with pytest.raises(UserError, match=r"budgets=\[0\] must be at least 1"):
        compose(["anytime=curve", "anytime.budgets=[0]"])
    with pytest.raises(UserError, match="zero, random, model"):
        compose(["anytime=curve", "anytime.starts=[zeros]"])
    empty = compose(["anytime=curve", "anytime.budgets=[]"])
    with pytest.raises(UserError, match="each of 1 or more"):
        instantiate_curve(empty)


def test_training_refuses_it_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate\.py ckpt_path="):
        checked(["anytime=curve"])
    with pytest.raises(UserError, match=r"evaluate\.py ckpt_path="):
        execute(compose(["anytime=curve"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_without_a_layer_is_refused() -> None:
    refused = compose(["model=resnet", "anytime=curve"])
    with pytest.raises(UserError, match="model=resnet has no equilibrium layer"):
        check_curve_on_model(refused.config, refused.choices)
    for typed in (["anytime=curve"], ["model=resnet"]):
        allowed = compose(typed)
        check_curve_on_model(allowed.config, allowed.choices)


def test_a_model_that_is_solved_once_for_all_samples_is_refused() -> None:
    refused = compose(["task=hyperparameter", "anytime=curve"])
    with pytest.raises(UserError, match="model=logistic_regression has one solution"):
        check_curve_on_model(refused.config, refused.choices)


def test_random_starts_are_reached_from_the_command_line() -> None:
    assert compose(["equilibrium.random_start=0.5"]).config.equilibrium.random_start == 0.5
