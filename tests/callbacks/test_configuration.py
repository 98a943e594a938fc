"""conf/callbacks against the constructors: every argument is named with its default."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf" / "callbacks"
FILES = sorted(path.stem for path in CONF.glob("*.yaml"))


def arguments(name: str) -> tuple[type, dict[str, Any]]:
    """The class and the unresolved arguments of a file."""
    content = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(content, dict)
    (node,) = content.values()
    return get_class(node.pop("_target_")), node


@pytest.mark.parametrize("name", FILES)
def test_first_line_describes_the_choice(name: str) -> None:
    first = (CONF / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 10


@pytest.mark.parametrize("name", [name for name in FILES if name != "default"])
def test_arguments_are_those_of_the_constructor(name: str) -> None:
    kind, given = arguments(name)
    parameters = dict(inspect.signature(kind).parameters)
    assert set(given) == set(parameters)
    if kind.__init__.__module__.startswith("equipoise."):
        for key, parameter in parameters.items():
            if parameter.default is not inspect.Parameter.empty:
                expected = parameter.default
                assert given[key] == (list(expected) if isinstance(expected, tuple) else expected)


ASKED_FOR = {
    "checkpoint_timed", "gradient_fidelity", "ema", "swa", "early_stopping", "learning_rate_finder",
    "warm_start", "segment_start", "contraction_budget", "stop_after",
}  # fmt: skip
"""What costs time, or trains, tests or ends otherwise."""


def test_default_takes_every_file_but_what_has_to_be_asked_for_and_stops_last() -> None:
    chosen = OmegaConf.load(CONF / "default.yaml").defaults
    assert set(chosen) == set(FILES) - {"default"} - ASKED_FOR
    assert chosen[-1] == "graceful_interrupt"
