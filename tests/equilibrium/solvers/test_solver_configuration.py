"""The files of the group `solver` name every argument with its default."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

from equipoise.equilibrium import LBFGS, ConjugateGradient, Solver
from tests.equilibrium.solvers.problems import SOLVERS

FOLDER = Path(__file__).parents[3] / "conf" / "solver"


@pytest.mark.parametrize("kind", [*SOLVERS, LBFGS, ConjugateGradient], ids=lambda kind: kind.name)
def test_the_file_agrees_with_the_signature(kind: type[Solver]) -> None:
    text = (FOLDER / f"{kind.name}.yaml").read_text()
    assert text.startswith("# ")
    named = yaml.safe_load(text)
    named.pop("about", None)
    assert named.pop("defaults") == ["_common", "_self_"]
    common = yaml.safe_load((FOLDER / "_common.yaml").read_text())
    again = set(common) & set(named)  # each argument is written once, unless it differs
    assert not any(common[name] == named[name] for name in again)
    assert named.pop("_target_") == f"equipoise.equilibrium.{kind.__name__}"
    defaults = {
        name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
    }
    assert common | named == defaults
