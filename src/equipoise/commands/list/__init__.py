"""List tasks and their data, models, pairs that fit, recipes, published weights."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

from equipoise.commands.arguments import Parser, with_config_dir
from equipoise.commands.list.entries import LISTS, Section, Shelf, choices, overview, plural
from equipoise.config.hydra import CONF, SEARCH_PATH, parse, search_path
from equipoise.errors import UserError, nearest

MARGIN = 2
LONGEST_NAME = 24
SEPARATOR = "; "
MORE = """
More of one list: python -m equipoise list models (or tasks, datasets, weights, any list above)
To use what is listed: python train.py task=digits model=mdeq solver=broyden
The settings of a choice: python train.py --cfg job -p solver solver=broyden"""


def main(words: Sequence[str]) -> int:
    """Print one list, or all of them; returns 0. Raises UserError where there is no such list."""
    arguments = _parser().parsed(words)
    typed = [word for word in arguments.what if word.startswith(f"{SEARCH_PATH}=")]
    names = [word for word in arguments.what if word not in typed]
    lines = with_config_dir(arguments.config_dir, typed)
    shelf = Shelf([CONF, *search_path(parse(lines))])
    sections = [named(name, shelf) for name in names] or list(overview(shelf))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for number, section in enumerate(sections):
        print("\n".join([*([""] if number else []), *lines_of(section, width)]))
    if not names:
        print(MORE)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m equipoise list", description=__doc__,
        epilog="Piped, each entry is one line: its name, two spaces, what there is to say.",
    )  # fmt: skip
    parser.add_argument(
        "what", nargs="*", metavar="list",
        help=f"{', '.join(LISTS)}, or a group of conf/, such as solvers; without: all but weights",
    )  # fmt: skip
    parser.add_argument("-cd", "--config-dir", help="a folder with choices of your own")
    return parser


def named(name: str, shelf: Shelf) -> Section:
    """The list with that name, in full. Raises UserError where there is none."""
    groups = {plural(group): group for group in shelf.groups}
    title = plural(name) if plural(name) in (*LISTS, *groups) else name
    if title in LISTS:
        return LISTS[title](shelf, True)
    if title in groups:
        return choices(groups[title], shelf)
    known = sorted({*LISTS, *groups})
    hint = nearest(name, known) or f"; lists: {', '.join(known)}"
    raise UserError(f"there is no list '{name}'{hint}")


def lines_of(section: Section, width: int | None) -> Iterator[str]:
    """A section as text of the given width; with None each entry is one line."""
    yield from _wrapped(section.title, width, 0)
    longest = max((len(entry.name) for entry in section.entries), default=0)
    indent = MARGIN + min(longest, LONGEST_NAME) + MARGIN
    for entry in section.entries:
        name = f"{' ' * MARGIN}{entry.name}"
        if width is None:
            yield f"{name:<{indent - MARGIN}}{' ' * MARGIN}{SEPARATOR.join(entry.said)}"
            continue
        said = [line for text in entry.said for line in _wrapped(text, width, indent)]
        if said[0].startswith(" " * (len(name) + 1)):
            said[0] = name + said[0][len(name) :]
        else:
            yield name
        yield from said


def _wrapped(text: str, width: int | None, indent: int) -> list[str]:
    """The text in lines indented by `indent` spaces; a web address is never broken."""
    if width is None:
        return [text]
    longest = max(map(len, text.split()), default=0)
    space = " " * (indent if indent + longest < width else 2 * MARGIN)
    return textwrap.wrap(
        text, max(width - 1, 2 * LONGEST_NAME), initial_indent=space, subsequent_indent=space,
        break_long_words=False, break_on_hyphens=False,
    ) or [space]  # fmt: skip
