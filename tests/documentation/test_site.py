"""The site: every page has a place in the navigation, and it builds without warnings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.documentation.pages import ROOT, anchors, links_of

NAVIGATION = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
ADDED = {"index.md", "contributing.md", "changelog.md"}
"""Pages of the site that lie outside docs/: see docs/site_pages.py."""
LARGEST = 150_000


def test_every_page_has_one_place_in_the_navigation() -> None:
    placed = re.findall(r"(\S+\.md)$", NAVIGATION, re.MULTILINE)
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    missing = sorted({*pages} - {*placed})
    assert missing == [], f"name these in the nav of mkdocs.yml: {', '.join(missing)}"
    assert sorted(placed) == sorted([*pages, *ADDED])


def test_pictures_are_small_and_shown() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    assert len(pictures) >= 5
    assert [path.name for path in pictures if path.stat().st_size > LARGEST] == []
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {Path(link).name for page in pages for link in links_of(page) if link.endswith(".png")}
    assert shown == {path.name for path in pictures}


def test_headings_are_linked_as_on_github() -> None:
    assert anchors("# A `tol=0` and µ: it's\n## From [one](x.md) to — two") == {
        "a-tol0-and-µ-its", "from-one-to--two",
    }  # fmt: skip


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None:
        pytest.skip("needs pip install 'equipoise[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    home = (tmp_path / "site" / "index.html").read_text()
    assert 'src="pictures/convergence.png"' in home
    reference = (tmp_path / "site" / "reference" / "equilibrium.html").read_text()
    assert 'id="equipoise.equilibrium.Anderson"' in reference
