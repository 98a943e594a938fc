"""What README and docs say can be typed."""

import re
import shlex
from pathlib import Path

import pytest

from equipoise.compose import compose, parse
from equipoise.launch import jobs, split_flags

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands(script):
    for page in (page for page in PAGES if not page.name.startswith("add_a_")):
        for block in FENCED.findall(page.read_text()):
            for line in block.splitlines():
                if line.startswith(f"python {script}"):
                    yield pytest.param(line, id=f"{page.stem}: {line[:60]}")


@pytest.mark.parametrize("line", list(commands("train.py")))
def test_every_training_command_composes(line):
    flags, words = split_flags(shlex.split(line)[2:])
    for job in jobs(words) if "-m" in flags else [words]:
        assert compose([word for word in job if "<" not in word]).config


@pytest.mark.parametrize("line", list(commands("evaluate.py")))
def test_every_evaluation_command_has_known_settings(line):
    words = [word for word in shlex.split(line)[2:] if "<" not in word]
    assert parse(words) == [] or compose(words).config


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
