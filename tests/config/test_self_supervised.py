"""What encoder, objective and probe of self-supervised learning bring, and where they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from equipoise.config.compose import CONF, compose
from equipoise.errors import UserError

HSIC = {"off_diagonal_target": -1.0, "off_diagonal_weight": None, "normalization": "unit_length"}
BARLOW = {"off_diagonal_target": 0.0, "off_diagonal_weight": 0.0051, "normalization": "batch_norm"}
RECIPE = """# @package _global_
# A recipe of other sizes
defaults:
  - override /trainer: default
recipe:
  use: { encoder: mdeq, objective: hsic }
  encoder:
    mdeq: { size: small, dropout: 0.25 }
    resnet: { size: xl }
  objective:
    hsic: { off_diagonal_weight: 0.125 }
    barlow: { scale: 3.0 }
"""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("task=digits objective=hsic", "objective=hsic cannot train task=digits: it has one of"),
        ("task=ssl_digits objective=null", "objective has no choice null"),
        ("task=ssl_digits objective=none", "choices: barlow, hsic"),
        ("task=ssl_digits ~objective", "objective"),
        (
            "task=linear_probe",
            "tests a trained model and trains none: python evaluate.py "
            "ckpt_path=<run>/checkpoints/best.ckpt task=linear_probe",
        ),
        (
            "task=ssl_digits solver=broyden",
            "has no equilibrium layer, unless encoder=mdeq, so solver=broyden would do nothing",
        ),
        ("task=ssl_digits gradient=exact", "so gradient=exact would do nothing"),
        ("task=ssl_digits encoder=mdeq solver=none", "leave solver=none out"),
        ("task=digits encoder=mdeq", "encoder=mdeq is a part of model=barlow only"),
        ("task=ssl_digits encoder=transformer", "choices: mdeq, resnet"),
        ("task=ssl_digits model=resnet", "models for this task: barlow"),
        ("task=digits model=barlow", "ssl_digits"),
    ],
)
def test_what_would_do_nothing_is_refused(typed: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as refusal:
        compose(typed.split())
    assert "\n" not in str(refusal.value)


def test_an_equilibrium_network_as_encoder_brings_its_layer() -> None:
    composition = compose(["task=ssl_digits", "encoder=mdeq"])
    assert (composition.choices["solver"], composition.choices["gradient"]) == (
        "anderson", "phantom",
    )  # fmt: skip
    assert composition.config.model.encoder._target_ == "equipoise.models.MDEQ"
    other = compose(["task=ssl_digits", "encoder=mdeq", "solver=broyden", "gradient=exact"])
    assert (other.choices["solver"], other.choices["gradient"]) == ("broyden", "exact")
    explicit = compose(["task=ssl_digits"])
    assert (explicit.choices["solver"], explicit.choices["gradient"]) == ("none", "none")


@pytest.mark.parametrize(("choice", "expected"), [("hsic", HSIC), ("barlow", BARLOW)])
def test_the_objective_stands_in_that_of_the_task(choice: str, expected: dict[str, object]) -> None:
    loss = compose(["task=ssl_digits", f"objective={choice}"]).config.task.objective.loss
    assert {name: loss[name] for name in expected} == expected
    typed = compose(
        ["task=ssl_digits", f"objective={choice}", "task.objective.loss.off_diagonal_weight=0.5"]
    )
    assert typed.config.task.objective.loss.off_diagonal_weight == 0.5


def test_a_recipe_speaks_of_the_chosen_encoder_alone() -> None:
    assert compose(["task=ssl_digits"]).config.model.encoder.size == "small"
    assert compose(["task=ssl_digits", "encoder=mdeq"]).config.model.encoder.size == "auto"
    typed = compose(["task=ssl_digits", "model.encoder.size=tiny"])
    assert typed.config.model.encoder.size == "tiny"


def test_a_recipe_chooses_encoder_and_objective_and_sets_them(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "other.yaml").write_text(RECIPE)
    words = [f"hydra.searchpath=[file://{tmp_path}]", "task=ssl_digits", "recipe=other"]
    composition = compose(words)
    assert (composition.choices["encoder"], composition.choices["objective"]) == ("mdeq", "hsic")
    encoder, loss = composition.config.model.encoder, composition.config.task.objective.loss
    assert (encoder.size, encoder.dropout) == ("small", 0.25)
    assert (loss.off_diagonal_weight, loss.scale) == (0.125, 1.0)
    typed = compose([*words, "encoder=resnet", "objective=barlow"])
    assert typed.config.model.encoder.size == "xl"
    assert typed.config.task.objective.loss.scale == 3.0


def test_every_encoder_and_objective_is_offered() -> None:
    offered = compose(["task=ssl_digits"]).config.task.about.objectives
    assert {file.stem for file in (CONF / "objective").glob("*.yaml")} == set(offered)
