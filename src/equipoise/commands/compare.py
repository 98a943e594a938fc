"""Compare runs on one page: what they differ in, what they reached, their curves."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from equipoise.commands.arguments import Parser
from equipoise.errors import UserError, nearest
from equipoise.report.comparison import SEED, compare_runs, find_runs
from equipoise.report.comparison_page import write_comparison
from equipoise.running.origin import origin

SETTINGS = """the settings:
  output=comparison    the folder to write: index.html with tables and curves, comparison.md and
                       csv files with the tables, each picture as PNG and as SVG; new or empty
  over=seed            settings over which means are taken, such as over=seed,task.fold
  overwrite            write into a folder that is not empty

A folder is that of a run, or one with runs below it, such as that of a multirun:
  python -m equipoise compare runs/digits/mdeq multirun/2026-01-01_12-00-00 output=mdeq
"""
DEFAULT = "comparison"


def main(words: Sequence[str]) -> int:
    """Write the page, and print the table and where it lies; returns 0. Raises UserError."""
    parser = Parser(
        "python -m equipoise compare", __doc__, epilog=SETTINGS,
        usage="%(prog)s <folder> [<folder> ...] [setting=value ...]",
        formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="folder", help="see below")
    folders, output, over, overwrite = parse(parser.parsed(words).words)
    runs = find_runs(folders)
    if len(runs) < 2:
        raise UserError(f"compare needs two runs or more, and {folders[0]} is one: give others too")
    comparison = compare_runs(runs, over)
    try:
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()) and not overwrite:
            raise UserError(
                f"{output} is not empty: choose another output=, or replace it with overwrite"
            )
        write_comparison(comparison, output, origin("compare", words))
    except OSError as error:
        raise UserError(f"output={output} cannot be written: {error.strerror or error}") from error
    print(f"page: {output / 'index.html'}")
    return 0


def parse(words: Sequence[str]) -> tuple[list[Path], Path, list[str], bool]:
    """The folders, the output, the settings averaged over, and whether to overwrite the output.

    Raises UserError for a setting or a folder that does not exist, or without any folder.
    """
    folders, output, over, overwrite = [], Path(DEFAULT), [SEED], False
    for word in words:
        key, equals, value = word.partition("=")
        if Path(word).is_dir() and word != "overwrite":
            folders.append(Path(word))
        elif word == "overwrite":
            overwrite = True
        elif key == "output" and value:
            output = Path(value)
        elif key == "over" and value:
            over = value.strip("[]").split(",")
        elif equals and "/" not in key:
            hint = nearest(key, ("output", "over", "overwrite"))
            raise UserError(f"compare takes no '{word}'{hint or '; see --help'}")
        else:
            raise UserError(f"there is no folder {word}: give folders of runs or multiruns")
    if not folders:
        raise UserError("compare needs folders of runs or multiruns; see --help")
    return folders, output, over, overwrite
