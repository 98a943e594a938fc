"""conf/gradient and conf/regularizer against the constructors: every argument, with its default."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
CHOICES = [
    path.relative_to(CONF).with_suffix("")
    for group in ("gradient", "regularizer")
    for path in sorted((CONF / group).glob("*.yaml"))
    if path.stem != "none"
]


def content(choice: Path) -> dict[str, Any]:
    """The choice as Hydra composes it, without the keys that are for the composition alone."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(overrides=[f"+{choice.parent}={choice.name}", "+seed=0"])
    node = OmegaConf.to_container(composed[str(choice.parent)], resolve=True)
    assert isinstance(node, dict)
    node.pop("about", None)
    return node  # type: ignore[return-value]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_first_line_describes_the_choice(choice: Path) -> None:
    first = (CONF / choice.with_suffix(".yaml")).read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 10


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_it_names_every_argument_and_is_the_default(choice: Path) -> None:
    node = content(choice)
    kind = get_class(node["_target_"])
    assert set(node) - {"_target_"} == set(inspect.signature(kind).parameters)
    built, default = instantiate(node), kind()
    for argument in inspect.signature(kind).parameters:
        assert getattr(built, argument) == getattr(default, argument)
