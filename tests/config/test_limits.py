"""The table of limits: complete, and meant for every number of every group."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from equipoise.config.about import about, written
from equipoise.config.annotations import parameters
from equipoise.config.compose import CONF, compose
from equipoise.config.limits import LIMITS, Limit, limit_of
from equipoise.config.values import check_limit, target_nodes
from equipoise.errors import UserError


def numbers_of_conf() -> Iterator[Any]:
    """Class, name and default of every argument in conf/ that is a number or a list of numbers.

    And what the file of the choice tells about its limits.
    """
    seen = set()
    for file in sorted(CONF.rglob("*.yaml")):
        choice = written(file)
        told = about(choice, "limits", {}) if file.parent != CONF else {}
        for _, node in target_nodes(choice):
            target = str(node["_target_"])
            for name, hint in parameters(target).items():
                if name in node and _is_number(hint) and (target, name) not in seen:
                    seen.add((target, name))
                    short = f"{target.rpartition('.')[2]}.{name}"
                    yield pytest.param(target, name, node[name], told.get(name), id=short)


def _is_number(hint: Any) -> bool:
    return hint in (int, float) or any(_is_number(inner) for inner in get_args(hint))


@pytest.mark.parametrize(("target", "name", "default", "told"), [*numbers_of_conf()])
def test_every_number_has_limits_that_hold_its_default(target, name, default, told):
    assert told or name in LIMITS or f"{target.rpartition('.')[2]}.{name}" in LIMITS
    limit = Limit(*told) if told else limit_of(target, name)
    check_limit(name, default, limit)
    for wrong in (math.nan, math.inf, -math.inf, [math.nan], [0.5, math.inf]):
        with pytest.raises(UserError, match=f"{name}=.*must be"):
            check_limit(name, wrong, limit)


def test_sizes_that_cannot_be_meant_have_a_greatest_one():
    endless = {name for name, limit in LIMITS.items() if math.isinf(limit.most)}
    counted = {"batch_size", "users", "domain", "train_size", "channels", "width", "vocabulary",
               "canvas", "crop", "train_scenes", "length", "layers", "queries"}  # fmt: skip
    assert not endless & counted
    assert all(not LIMITS[name].holds(10**9) for name in counted)


@pytest.mark.parametrize(
    ("limit", "within", "beyond", "words"),
    [
        (Limit(0, 1), (0, 0.5, 1), (-1e-9, 1.1), "at least 0 and at most 1"),
        (Limit(0, 1, above=True), (1e-9, 1), (0,), "above 0 and at most 1"),
        (Limit(0, 1, below=True), (0, 0.999), (1,), "at least 0 and below 1"),
        (Limit(1), (1, 10**400), (0,), "at least 1"),
        (Limit(), (-5, 0), (), "a finite number"),
    ],
)
def test_a_limit_says_which_ends_belong_to_it(limit, within, beyond, words):
    assert all(limit.holds(number) for number in within)
    assert not any(limit.holds(number) for number in beyond)
    assert limit.described() == words


def test_a_class_of_another_package_has_words_of_its_own():
    assert limit_of("torch.optim.SGD", "momentum") == Limit(0)
    assert limit_of("lightning.pytorch.Trainer", "max_steps").holds(-1)
    assert not limit_of("equipoise.equilibrium.Anderson", "max_steps").holds(-1)
    assert limit_of("my_package.Optimizer", "momentum") == Limit()


@pytest.mark.parametrize(
    ("told", "typed", "said"),
    [
        ("[1, 10]", 11, "solver.max_steps=11 must be at least 1 and at most 10"),
        ("[3, null]", 2, "solver.max_steps=2 must be at least 3"),
        ("[3]", 5, "solver.about.limits is not of type dict"),
    ],
)
def test_the_file_of_a_choice_tells_limits_of_its_own(told, typed, said, tmp_path):
    file = tmp_path / "solver" / "mine.yaml"
    file.parent.mkdir()
    known = (CONF / "solver" / "fixed_point.yaml").read_text()
    file.write_text(f"{known}\nabout: {{limits: {{max_steps: {told}}}}}\n")
    words = [f"hydra.searchpath=[file://{tmp_path}]", "solver=mine"]
    with pytest.raises(UserError, match=re.escape(said)):
        compose([*words, f"solver.max_steps={typed}"])
    if typed != 5:
        assert compose([*words, "solver.max_steps=4"]).config.solver.max_steps == 4
