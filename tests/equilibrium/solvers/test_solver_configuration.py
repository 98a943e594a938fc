"""The files of the group `solver` name every argument with its default."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

from equipoise.equilibrium import Solver
from tests.equilibrium.solvers.problems import SOLVERS

FOLDER = Path(__file__).parents[3] / "conf" / "solver"


@pytest.mark.parametrize("kind", SOLVERS, ids=lambda kind: kind.name)
def test_the_file_agrees_with_the_signature(kind: type[Solver]) -> None:
    text = (FOLDER / f"{kind.name}.yaml").read_text()
    assert text.startswith("# ")
    named = yaml.safe_load(text)
    assert named.pop("defaults") == ["_common", "_self_"]
    common = yaml.safe_load((FOLDER / "_common.yaml").read_text())
    assert not set(common) & set(named)  # each argument is written once
    assert named.pop("_target_") == f"equipoise.equilibrium.{kind.__name__}"
    defaults = {
        name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
    }
    assert named | common == defaults
