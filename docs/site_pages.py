"""Pages of the site that lie outside docs/: README is its first page (an event hook of mkdocs)."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README, CONTRIBUTING and CHANGELOG to the site."""
    for source, target in PAGES.items():
        text = LINK.sub(_link, (ROOT / source).read_text()).replace('src="docs/', 'src="')
        files.append(File.generated(config, target, content=text))
    return files


def _link(match: re.Match[str]) -> str:
    """A link of the repository's root as one of docs/; what the site lacks becomes plain text."""
    mark, text, address = match.groups()
    if "://" in address or address.startswith("#"):
        return match.group()
    if address.startswith("docs/"):
        return f"{mark}[{text}]({address.removeprefix('docs/')})"
    return f"{mark}[{text}]({PAGES[address]})" if address in PAGES else f"{text} (`{address}`)"
