"""Answer a range query from a finished survey, with its standard error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equipoise.commands.arguments import Parser
from equipoise.config.own_code import as_packages
from equipoise.config.recompose import trusted_packages
from equipoise.config.signatures import check_targets
from equipoise.config.stored import Stored
from equipoise.errors import UserError, nearest
from equipoise.running.run_checkpoint import read_run

if TYPE_CHECKING:
    from equipoise.privacy import Answer, RangeEstimate

CONDITION = re.compile(
    r"\s*(.+?)\s+in\s*([\[(])\s*([^,\[\]()]+?)\s*,\s*([^,\[\]()]+?)\s*([\])])\s*"
)
LARGEST = 2**53
FORM = "a condition looks like {} in [10, 200)"


@dataclass(frozen=True)
class Attribute:
    """A column of a survey: its name, its number of cells, and, where it was binned, its limits."""

    name: str
    size: int
    limits: Sequence[float] | None = None

    @property
    def width(self) -> float:
        """The width of a cell, in the column's own unit."""
        return 1.0 if self.limits is None else (self.limits[1] - self.limits[0]) / self.size

    @property
    def origin(self) -> float:
        """Where the first cell begins."""
        return 0.0 if self.limits is None else self.limits[0]


def main(words: Sequence[str]) -> int:
    """Print the answer; returns 0. Raises UserError."""
    arguments = _parser().parsed(words)
    checkpoint, stored = read_run(arguments.run)
    check_targets(stored.config, trusted_packages(stored, as_packages(arguments.trust)))
    task = stored.config["task"]
    if stored.choices.get("task") != "range_query" and not task.get("epsilon"):
        raise UserError(
            f"{arguments.run} is a run of task={stored.choices.get('task')}; queries are "
            "answered by a run of task=range_query"
        )
    attributes = attributes_of(stored)
    ranges = read_ranges(arguments.query, attributes)
    answer = estimate_of(stored, checkpoint["state_dict"]).query(*ranges)
    print(described(answer, written(ranges, attributes), int(task["users"])))
    return 0


def attributes_of(stored: Stored) -> list[Attribute]:
    """The columns that a survey asked for."""
    task = stored.config["task"]
    ends = task.get("limits") or [None] * len(task["domain"])
    return [
        Attribute(name, size, end)
        for name, size, end in zip(task["columns"], task["domain"], ends, strict=True)
    ]


def described(answer: Answer, condition: str, people: int) -> str:
    """The answer in two lines, as a fraction and as a number of people."""
    value, error = answer
    if error is None:
        share, number, unknown = "", "", " (no standard error)"
    else:
        share, number, unknown = f" ± {error:.4f}", f" ± {error * people:,.0f}", ""
    return (
        f"{condition}: {value:.4f}{share} of the people{unknown}\n"
        f"about {value * people:,.0f}{number} of {people:,}"
    )


def _parser() -> Parser:
    parser = Parser(
        prog="python -m equipoise query",
        description="Answer a range query from a finished survey, with its standard error. The "
        "answer uses the survey's first repetition.",
    )
    parser.add_argument("run", help="the folder of a run of task=range_query, or its checkpoint")
    parser.add_argument(
        "query", help='such as "age in [30, 40)" or "age in [30, 40) and hours in [0, 20]"'
    )
    parser.add_argument(
        "--trust", nargs="*", default=[], metavar="PACKAGE",
        help="packages of your own whose classes the checkpoint may name",
    )  # fmt: skip
    return parser


def estimate_of(stored: Stored, state: Mapping[str, Any]) -> RangeEstimate:
    """The answers of the first survey of a checkpoint. Raises UserError where it is unfinished."""
    from equipoise.privacy import RoundError
    from equipoise.running.build import build_task
    from equipoise.running.messages import quiet_lightning

    quiet_lightning()
    task: Any = build_task(stored.config)
    task.load_state_dict(state)
    try:
        estimate: RangeEstimate = task.surveys[0].estimate()
    except RoundError as error:
        raise UserError(
            f"the survey is not finished: {error} Resume it with ckpt_path=<this checkpoint>"
        ) from error
    return estimate


def read_ranges(text: str, attributes: Sequence[Attribute]) -> list[tuple[int, int]]:
    """A half-open range of cells for each attribute; the whole domain where none is named.

    [a, b) holds a but not b, and so on. Ends in a binned column are moved to the nearest edge of a
    cell. Raises UserError where the text cannot be read, or a range extends beyond the domain.
    """
    ranges = {attribute.name: (0, attribute.size) for attribute in attributes}
    named: list[str] = []
    for part in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE):
        match = CONDITION.fullmatch(part)
        if match is None:
            raise UserError(f"cannot read '{part}': {FORM.format(attributes[0].name)}")
        name = match[1]
        if name not in ranges:
            names = ", ".join(ranges)
            raise UserError(
                f"the survey has no attribute '{name}'{nearest(name, ranges) or ';'} it has {names}"
            )
        if name in named:
            raise UserError(f"'{name}' has two conditions: give one range for each attribute")
        named.append(name)
        attribute = next(a for a in attributes if a.name == name)
        ranges[name] = _cells(attribute, match[2], match[3], match[4], match[5])
    return list(ranges.values())


def written(ranges: Sequence[tuple[int, int]], attributes: Sequence[Attribute]) -> str:
    """The ranges as they were understood, without those that are the whole domain."""
    parts = [
        f"{a.name} in [{a.origin + low * a.width:.6g}, {a.origin + high * a.width:.6g})"
        for (low, high), a in zip(ranges, attributes, strict=True)
        if (low, high) != (0, a.size)
    ]
    return " and ".join(parts) or "everybody"


def _cells(
    attribute: Attribute, opening: str, first: str, second: str, closing: str
) -> tuple[int, int]:
    low, high = (_edge(attribute, end) for end in (first, second))
    if attribute.limits is None:  # with integers it matters whether an end is included
        low += opening == "("
        high += closing == "]"
    if not 0 <= low < high <= attribute.size:
        least, most = attribute.origin, attribute.origin + attribute.size * attribute.width
        raise UserError(
            f"{attribute.name} in {opening}{first}, {second}{closing} must be non-empty and lie "
            f"within [{least:g}, {most:g})"
        )
    return low, high


def _edge(attribute: Attribute, text: str) -> int:
    """The cell that begins at a number; in a binned column the nearest one."""
    try:
        number = float(text)
    except ValueError as error:
        raise UserError(f"'{text}' is not a number; {FORM.format(attribute.name)}") from error
    position = (number - attribute.origin) / attribute.width
    if not abs(position) < LARGEST:
        raise UserError(f"'{text}' lies outside the domain of {attribute.name}")
    if attribute.limits is None and position != int(position):
        raise UserError(f"{attribute.name} takes integers, and {text} is not one")
    return round(position)
