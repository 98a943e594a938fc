"""What the command line's sweeps mean to a search, and which points a space has."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.config.hydra import parse
from equipoise.config.search_space import Case, Parameter, Space, as_space, parameter_of
from equipoise.errors import UserError


def of(line: str) -> Parameter:
    return parameter_of(parse([line])[0])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.b=interval(0.1,2)", Parameter("a.b", "float", low=0.1, high=2.0)),
        ("a.b=tag(log,interval(1e-4,1))",
         Parameter("a.b", "float", low=1e-4, high=1.0, log=True)),
        ("a.b=int(interval(1,5))", Parameter("a.b", "int", low=1, high=5)),
        ("a.b=tag(log,int(interval(1,64)))", Parameter("a.b", "int", low=1, high=64, log=True)),
        ("a.b=range(1,8,2)", Parameter("a.b", "int", low=1, high=7, step=2)),
        ("a.b=range(4,0,-1)", Parameter("a.b", "int", low=1, high=4, step=1)),
        ("a.b=range(0.0,1.0,0.25)", Parameter("a.b", "float", low=0.0, high=0.75, step=0.25)),
        ("a.b=choice(x,y)", Parameter("a.b", "choice", ("x", "y"))),
        ("a.b=1,null,true,1", Parameter("a.b", "choice", ("1", "null", "True"))),
        ("+a.b=[1,2],[3]", Parameter("+a.b", "choice", ("[1,2]", "[3]"))),
    ],
)  # fmt: skip
def test_every_form_of_the_command_line_is_a_parameter(line: str, expected: Parameter) -> None:
    assert of(line) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a=interval(2,1)", "from a smaller number to a larger one"),
        ("a=interval(0,inf)", "from a smaller number to a larger one"),
        ("a=tag(log,interval(0,1))", "above 0"),
        ("a=tag(log,range(1,9,2))", "tag(log,interval(a,b))"),
        ("a=range(1,1)", "lists no values"),
    ],
)
def test_what_cannot_be_drawn_is_refused(line: str, said: str) -> None:
    with pytest.raises(UserError, match=r".*") as caught:
        of(line)
    assert said in str(caught.value)


DAMPING = Parameter("gradient.damping", "float", low=0.5, high=1.0, step=0.25)
GROUPS = (
    Parameter("solver", "choice", ("anderson", "broyden")),
    Parameter("gradient", "choice", ("phantom", "shine")),
)
PAIRS = [
    Case(("solver=anderson", "gradient=phantom"), (DAMPING,)),
    Case(("solver=broyden", "gradient=phantom"), (DAMPING,)),
    Case(("solver=broyden", "gradient=shine"), ()),
]


def test_pairs_that_cannot_go_together_are_never_drawn_nor_what_a_choice_lacks() -> None:
    space = as_space(["seed=1"], GROUPS, PAIRS, refused=True)
    generator = random.Random(0)
    drawn = {tuple(space.draw(lambda p: generator.choice(p.listed()))) for _ in range(200)}
    damped = [f"gradient.damping={value}" for value in ("0.5", "0.75", "1")]
    assert drawn == {
        ("seed=1", "solver=anderson", "gradient=phantom", damping) for damping in damped
    } | {("seed=1", "solver=broyden", "gradient=phantom", damping) for damping in damped} | {
        ("seed=1", "solver=broyden", "gradient=shine")
    }
    assert len(list(space.points())) == len(drawn)
    assert space.shared == ["solver", "gradient"]


def test_groups_that_all_go_together_are_drawn_each_for_itself() -> None:
    every = [*PAIRS, Case(("solver=anderson", "gradient=shine"), ())]
    space = as_space([], GROUPS, every, refused=False)
    assert list(space.parameters) == ["solver", "gradient", "gradient.damping"]
    assert len(list(space.points())) == 8


@settings(max_examples=50, deadline=None)
@given(st.integers(-50, 50), st.integers(1, 60), st.integers(1, 7))
def test_a_range_has_the_values_that_hydra_gives_it(start: int, length: int, step: int) -> None:
    override = parse([f"a=range({start},{start + length},{step})"])[0]
    expected = list(override.sweep_iterator())
    parameter = parameter_of(override)
    listed = [int(value) for value in parameter.listed()]
    assert listed == expected


def test_a_grid_needs_values() -> None:
    free = Space((), (), (Case((), (Parameter("lr", "float", low=0.1, high=1.0),)),))
    with pytest.raises(UserError, match="sampler=grid needs values of lr"):
        list(free.points())
