"""Answer a range query from a finished survey, with its standard error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.checkpoints import read_checkpoint
from equipoise.commands import Parser
from equipoise.config.signatures import as_packages, check_targets
from equipoise.config.stored import stored_run
from equipoise.errors import UserError

if TYPE_CHECKING:
    from equipoise.privacy import Answer, RangeEstimate

CHECKPOINTS = ("best.ckpt", "last.ckpt")


def main(arguments: Sequence[str]) -> int:
    """Print the answer; returns 0. Raises UserError."""
    given = _parser().parse_args(arguments)
    file = checkpoint_of(Path(given.run))
    checkpoint = read_checkpoint(file)
    check_targets(stored_run(checkpoint, file).config, as_packages(given.trust))
    task = checkpoint["config"]["task"]
    if checkpoint["choices"].get("task") != "range_query" and not task.get("epsilon"):
        raise UserError(
            f"{given.run} is a run of task={checkpoint['choices'].get('task')}; queries are "
            "answered by a run of task=range_query"
        )
    from equipoise.range_conditions import Attribute, read_ranges, written

    ends = task.get("limits") or [None] * len(task["domain"])
    attributes = [
        Attribute(name, size, end)
        for name, size, end in zip(task["columns"], task["domain"], ends, strict=True)
    ]
    ranges = read_ranges(given.query, attributes)
    answer = estimate_of(checkpoint).query(*ranges)
    print(told(answer, written(ranges, attributes), int(task["users"])))
    return 0


def told(answer: Answer, condition: str, people: int) -> str:
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
        "answer is that of the survey's first repetition.",
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


def checkpoint_of(run: Path) -> Path:
    """The checkpoint of a run's folder; a file is one itself. Raises UserError without one."""
    if not run.is_dir():
        if not run.exists():
            raise UserError(f"there is no run at {run}; give runs/range_query/<model>/<time>")
        return run
    found = [run / "checkpoints" / name for name in CHECKPOINTS]
    known = next((file for file in found if file.is_file()), None)
    if known is None:
        raise UserError(f"the folder {run} holds no checkpoint of a finished survey")
    return known


def estimate_of(checkpoint: dict[str, Any]) -> RangeEstimate:
    """The answers of the first survey of a checkpoint. Raises UserError where it is unfinished."""
    from equipoise.building import build_task
    from equipoise.privacy import RoundError
    from equipoise.run import quiet_lightning

    quiet_lightning()
    task: Any = build_task(checkpoint["config"])
    task.load_state_dict(checkpoint["state_dict"])
    try:
        estimate: RangeEstimate = task.surveys[0].estimate()
    except RoundError as error:
        raise UserError(
            f"the survey is not finished: {error} Resume it with ckpt_path=<this checkpoint>"
        ) from error
    return estimate
