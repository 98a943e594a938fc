"""What the pages hold: lines of a shell, blocks of Python, links, and the anchors of headings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^    .*\n|^\n(?=    ))+", re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
SHELL = ("", "bash", "sh")
PROGRAMS = re.compile(
    r"(python|equipoise|equipoise-train|equipoise-evaluate|make|pip|torchrun|srun|wandb|source|eval"
    r"|echo) "
)
OURS_INLINE = re.compile(
    r"python (train\.py|evaluate\.py|-m equipoise|-m benchmarks|examples/) ?\S"
)
LINK = re.compile(r'(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)|src="([^"]+)"')
HEADING = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)


class Line(NamedTuple):
    """A command of a page: the page's name, and the line as a reader types it."""

    page: str
    text: str


def name_of(page: Path) -> str:
    """The page below the root of the repository."""
    return page.relative_to(ROOT).as_posix()


def shell_blocks(text: str) -> list[str]:
    """Fenced and indented blocks of a shell, with continued lines joined."""
    fenced = [body for language, body in FENCED.findall(text) if language in SHELL]
    rest = FENCED.sub("", text)
    indented = [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in INDENTED.findall(rest)]
    return [re.sub(r"\\\n\s*", "", block) for block in [*fenced, *indented]]


def lines_of(page: Path) -> list[Line]:
    """The commands of a page, those in the running text only if they are ours and have words."""
    text = page.read_text()
    typed = [line.strip() for block in shell_blocks(text) for line in block.splitlines()]
    lines = [line for line in typed if PROGRAMS.match(line)]
    prose = re.sub(r"(?<=\S)\n(?=\S)", " ", FENCED.sub("", text))
    lines += [code for code in INLINE.findall(prose) if OURS_INLINE.match(code)]
    return [Line(name_of(page), line) for line in dict.fromkeys(lines)]


def all_lines() -> list[Line]:
    """The commands of all pages but the changelog's, each once for the first page that has it."""
    found = [line for page in PAGES if page.name != "CHANGELOG.md" for line in lines_of(page)]
    first = {line.text: line for line in reversed(found)}
    return [line for line in found if first[line.text] is line]


def anchors(text: str) -> set[str]:
    """The names by which headings are linked, as GitHub makes them."""
    names = set()
    for heading in HEADING.findall(FENCED.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        kept = re.sub(r"[^\w\- ]", "", plain.replace("`", ""))
        names.add(kept.strip().replace(" ", "-"))
    return names


def links_of(page: Path) -> list[str]:
    """The addresses that a page links to or shows; code is left out."""
    text = INLINE.sub("", FENCED.sub("", page.read_text()))
    return [link or source for link, source in LINK.findall(text)]


def python_blocks(page: Path) -> list[str]:
    """The blocks of Python of a page."""
    return [body for language, body in FENCED.findall(page.read_text()) if language == "python"]
