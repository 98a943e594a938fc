"""Blend submissions of couplings by weights that are fitted on half of the truth."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from tqdm import tqdm

from equipoise.commands.arguments import Parser
from equipoise.errors import UserError

if TYPE_CHECKING:
    from equipoise.commands.ensemble.blends import Halves, MedianScheme
    from equipoise.commands.ensemble.simplex_weights import Fit
    from equipoise.commands.ensemble.submission_errors import Floats, SubmissionErrors
    from equipoise.commands.ensemble.submissions import CouplingValues
    from equipoise.report.couplings import TypeScore

SEEDS = 2**32
TYPES_OF_COMPETITION = 8
progress = partial(tqdm, delay=1.0, leave=False)


class Read(NamedTuple):
    """The input to blend: M submissions, and the couplings in the order of the halves.

    left_out: couplings of the truth that no submission has.
    """

    files: list[Path]
    names: list[str]
    truth: CouplingValues
    halves: Halves
    scheme: MedianScheme
    left_out: int


def main(words: Sequence[str]) -> int:
    """Fit, write the folder and print the scores; returns 0. Raises UserError."""
    from equipoise.report.submissions import print_ensemble, write_ensemble
    from equipoise.running import folders

    begin = time.perf_counter()
    arguments = _parser().parsed(words)
    read = read_all(arguments)
    with folders.held(_folder(arguments.output)) as folder:
        with TemporaryDirectory(dir=folder, prefix=".errors_") as place:
            errors = stored_errors(read, Path(place) / "errors")
            fits = fitted(errors, read, arguments)
            results = results_of(errors, read, fits, arguments)
            _write_blend(errors, read, fits, folder / "submission.csv")
            correlation = errors.only(
                [read.names.index(name) for name in results["submissions"]["held_out"]]
            ).correlation(list(read.halves.held_out.values()))
        results["seconds"] = time.perf_counter() - begin
        write_ensemble(results, correlation, folder)
        print_ensemble(results, folder)
    return 0


def read_all(arguments: Namespace) -> Read:
    """Read the truth and the first submission, and split their couplings into halves."""
    from equipoise.commands.ensemble.blends import MedianScheme, stratified_halves
    from equipoise.commands.ensemble.submissions import names_of, read_submission, read_truth

    files = [Path(name) for name in arguments.predictions]
    names = names_of(files)
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} does not exist or is not a file: correct its name")
    if len(files) < 2:
        raise UserError("a single submission cannot be blended: give at least two")
    if not 0 <= arguments.seed < SEEDS:
        raise UserError(f"--seed {arguments.seed} must be from 0 to {SEEDS - 1}")
    scheme = MedianScheme.of(len(files), arguments.keep, arguments.middle)
    truth = read_truth(Path(arguments.truth))
    known = truth.of(read_submission(files[0]))
    halves = stratified_halves(known.kind, known.types, arguments.seed)
    left_out = len(truth) - len(known)
    print(f"{len(files)} submissions of {len(known):,} couplings", flush=True)
    if left_out:
        print(f"left out: {left_out:,} couplings of the truth that no submission has", flush=True)
    return Read(files, names, known.take(halves.order), halves, scheme, left_out)


def stored_errors(read: Read, file: Path) -> SubmissionErrors:
    """Write the errors of all submissions to a file, and memory-map it."""
    from equipoise.commands.ensemble.submission_errors import SubmissionErrors
    from equipoise.commands.ensemble.submissions import store_errors

    count = len(read.files)
    store_errors(progress(read.files, "reading"), count, read.truth, file)
    print(f"their errors: {file.stat().st_size / 2**20:,.0f} MB, mapped from disk", flush=True)
    return SubmissionErrors.of_file(file, count)


def fitted(errors: SubmissionErrors, read: Read, arguments: Namespace) -> dict[str, Fit]:
    """The weights of each type."""
    from equipoise.commands.ensemble.blends import fit_weights

    how = arguments.mode, arguments.solver, arguments.seed
    with progress(desc="fitting the weights", unit=" steps") as bar:
        return fit_weights(errors, read.halves.fitted, *how, bar.update)


def results_of(
    errors: SubmissionErrors, read: Read, fits: Mapping[str, Fit], arguments: Namespace
) -> dict[str, Any]:
    """The content of scores.json."""
    from equipoise.commands.ensemble.blends import mean_logs, single_mae
    from equipoise.report.couplings import YARDSTICKS

    singles = {half: single_mae(errors, blocks) for half, blocks in read.halves.both.items()}
    ranked = mean_logs(singles["fitted"], read.halves.fitted).argsort(kind="stable").tolist()
    of_competition = read.truth.competition and len(read.halves.fitted) == TYPES_OF_COMPETITION
    return {
        "mode": arguments.mode,
        "solver": arguments.solver,
        "seed": arguments.seed,
        "median_scheme": read.scheme._asdict(),
        "couplings": {
            **{
                half: {name: rows.stop - rows.start for name, rows in blocks.items()}
                for half, blocks in read.halves.both.items()
            },
            "left_out": read.left_out,
        },
        "gap": {name: fit.gap for name, fit in fits.items()},
        "weights": {
            name: {read.names[place]: float(fit.weights[place]) for place in ranked}
            for name, fit in fits.items()
        },
        "scores": _scores(errors, read, fits),
        "drop_best": _dropped(errors, read, fits, arguments),
        "submissions": _ranked(singles, read, ranked),
        "yardsticks": YARDSTICKS if arguments.yardsticks or of_competition else {},
    }


def _scores(errors: SubmissionErrors, read: Read, fits: Mapping[str, Fit]) -> dict[str, Any]:
    """The scores of each blend on both halves."""
    from equipoise.commands.ensemble.blends import blend_scores, ways_to_blend

    ways = ways_to_blend(errors, read.halves.fitted, fits, read.scheme)
    halves = read.halves.both
    scores: dict[str, Any] = {half: {} for half in halves}
    for way, blend in progress(ways.items(), "scores"):
        for half, blocks in halves.items():
            scores[half][way] = told(blend_scores(blend, blocks))
    return scores


def _dropped(
    errors: SubmissionErrors, read: Read, fits: Mapping[str, Fit], arguments: Namespace
) -> list[dict[str, Any]]:
    """The rows of drop_best.csv."""
    from equipoise.commands.ensemble.blends import drop_best

    how = arguments.mode, arguments.solver, arguments.seed
    with progress(desc="without the best", unit=" steps") as bar:
        rows = drop_best(errors, read.halves, *how, fits, bar.update)
        return [row._asdict() | {"best": read.names[row.best]} for row in rows]


def _ranked(singles: Mapping[str, Floats], read: Read, ranked: Sequence[int]) -> dict[str, Any]:
    """The scores of each submission on both halves, the best on the fitted half first."""
    from equipoise.commands.ensemble.blends import scores_of

    return {
        half: {
            read.names[place]: told(scores_of(mae[place], read.halves.fitted)) for place in ranked
        }
        for half, mae in singles.items()
    }


def told(scores: Mapping[str, TypeScore]) -> dict[str, Any]:
    """Scores in the form of scores.json."""
    from equipoise.report.couplings import mean_log_mae

    return {
        "mean_log_mae": mean_log_mae(scores),
        "log_mae": {name: score.log_mae for name, score in scores.items()},
        "mae": {name: score.mae for name, score in scores.items()},
    }


def _write_blend(errors: SubmissionErrors, read: Read, fits: Mapping[str, Fit], file: Path) -> None:
    """Write the blend of all couplings, in both halves, as a submission."""
    from equipoise.commands.ensemble.submissions import write_submission

    value = read.truth.value.copy()
    for blocks in read.halves.both.values():
        for name, rows in blocks.items():
            value[rows] += errors.blended(fits[name].weights, rows)
    write_submission(read.truth.id, value, file)


def _folder(named: str | None) -> Path:
    """The named folder, which must be new or empty, else ensembles/<time>."""
    from equipoise.running import folders

    if named is not None:
        return folders.claim(Path(named), name="--output")
    return folders.claim_new(Path("ensembles"), datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def _parser() -> Parser:
    from equipoise.commands.ensemble.blends import Mode
    from equipoise.commands.ensemble.simplex_weights import Solver

    parser = Parser(
        prog="python -m equipoise ensemble",
        description="Blend submissions of couplings by positive weights of sum 1, which are fitted "
        "on half of the truth and judged by the other half.",
    )
    parser.add_argument(
        "predictions", nargs="+",
        help="csv files with the columns id and scalar_coupling_constant, all of the same ids",
    )  # fmt: skip
    parser.add_argument(
        "--truth", required=True,
        help="a csv file with the columns id, type and scalar_coupling_constant",
    )  # fmt: skip
    parser.add_argument(
        "--mode", choices=get_args(Mode), default="single",
        help="the same weights for all types of couplings (the default), or a fit for each",
    )  # fmt: skip
    parser.add_argument(
        "--solver", choices=get_args(Solver), default="convex",
        help="Newton's method with a proven gap (the default), or Adam as published",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=42, help="of the halves (default 42)")
    parser.add_argument(
        "--keep", type=int, help="median scheme: submissions kept for each type (default 9)"
    )
    parser.add_argument(
        "--middle", type=int, help="median scheme: of those, how many are averaged (default 5)"
    )
    parser.add_argument(
        "--yardsticks", action="store_true",
        help="show published scores beside the result, as is done for the competition's molecules",
    )  # fmt: skip
    parser.add_argument("--output", help="a new folder (default ensembles/<time>)")
    return parser
