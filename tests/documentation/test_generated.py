"""Pages and pictures that a program makes are what it would make now."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from equipoise.config.help_page import description
from tests.documentation.pages import ROOT

CARDS = (ROOT / "docs" / "model_cards.md").read_text()


def test_every_recipe_has_a_card_with_its_sentence() -> None:
    recipes = sorted((ROOT / "conf" / "recipe").glob("[!_]*.yaml"))
    sections = re.findall(r"^## (\w+)\n\n(.*)\.$", CARDS, re.MULTILINE)
    assert sections == [(file.stem, description(file)) for file in recipes]
    for row in ("command", "data", "licence of the data", "parameters", "training", "limits"):
        assert CARDS.count(f"\n| {row} | ") == len(recipes)


@pytest.mark.slow
def test_the_cards_are_those_of_the_recipes() -> None:
    words = "import runpy; print(runpy.run_path('docs/model_cards.py')['page'](), end='')"
    assert output(["-c", words], ROOT) == CARDS


@pytest.mark.slow
def test_the_pictures_of_the_readme_are_made_by_one_command(tmp_path: Path) -> None:
    short = [
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
        "trainer.limit_test_batches=2",
        "task.eval_batch_size=32",
    ]
    said = output(
        [str(ROOT / "examples" / "readme_pictures.py"), "--output", "out", *short], tmp_path
    )
    assert said.count("picture: ") == 3
    for name in ("convergence", "anytime", "masks"):
        made, kept = tmp_path / "out", ROOT / "docs" / "pictures"
        assert Image.open(made / f"{name}.png").width == Image.open(kept / f"{name}.png").width


def output(arguments: list[str], folder: Path) -> str:
    """What Python prints to standard output, which has to end well."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
