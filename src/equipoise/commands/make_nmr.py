"""Compute NMR couplings by density functional theory, as task=champs reads them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tqdm import tqdm

from equipoise.commands.arguments import Parser
from equipoise.config.machine import cores
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.running.interrupts import Stopped

if TYPE_CHECKING:
    from equipoise.data.molecules.density_functional import Calculated, Job, Level, Pieces

EXTRA = "make-nmr computes with {} (pip install 'equipoise[nmr]')"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class Outcome:
    """The state of the molecules: how many are done, and why the others are not.

    done: those of the command's molecules that are done, in earlier runs too.
    """

    wanted: int
    done: int
    reasons: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """What to report after an early end."""
        return (
            f"{self.done:,} of {self.wanted:,} molecules are computed, and the same command goes "
            "on from there"
        )


def main(words: Sequence[str]) -> int:
    """Compute the molecules that the folder lacks; returns 0, or 1 where some have failed.

    Raises UserError, RunInterrupted, or RunFailed where a process was killed.
    """
    from equipoise.data.molecules.density_functional import Pieces

    arguments = _parser().parsed(words)
    for package in ("rdkit", "pyscf"):
        if find_spec(package) is None:
            raise UserError(EXTRA.format(package))
    if arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: it takes 1 or more")
    jobs = read_jobs(arguments.smiles, arguments.structures, arguments.level)
    pieces = Pieces(Path(arguments.output))
    there = pieces.prepare(jobs)
    rest = [job for job in jobs if job.name not in there]
    outcome = Outcome(len(jobs), len(there))
    already = f"; {len(there):,} of them are in {pieces.folder}" if there else ""
    print(f"{len(jobs):,} molecules at level {arguments.level}{already}", flush=True)
    try:
        work(rest, pieces, min(arguments.workers, len(rest)), outcome)
    except Stopped as stop:
        raise RunInterrupted(f"Interrupted: {outcome}", stop.number) from stop
    except BrokenProcessPool as error:
        raise RunFailed(
            f"a process was killed, perhaps for lack of memory: try fewer --workers; {outcome}"
        ) from error
    finally:
        assemble(pieces)
    if outcome.reasons:
        print(f"{len(outcome.reasons):,} of {outcome.wanted:,} molecules failed: see above")
    return 1 if outcome.reasons else 0


def read_jobs(smiles: str | None, structures: str | None, level: Level) -> list[Job]:
    """The requested molecules. Raises UserError for a file that cannot be read."""
    from equipoise.data.molecules.density_functional import (
        jobs_of_smiles,
        jobs_of_structures,
    )

    if smiles is not None and structures is None:
        return jobs_of_smiles(Path(smiles), level)
    if structures is not None and smiles is None:
        return jobs_of_structures(Path(structures), level)
    raise UserError("give a file of SMILES, or one with --structures, and the folder to write")


def _parser() -> Parser:
    from equipoise.data.molecules.density_functional import Level

    parser = Parser(prog="python -m equipoise make-nmr", description=__doc__)
    parser.add_argument(
        "smiles", nargs="?", help="a text file: a SMILES a line, and behind it a name if you like"
    )
    parser.add_argument("output", help="the folder to write, or to go on with; task.path")
    parser.add_argument(
        "--structures", metavar="FILE",
        help="a structures.csv with the geometries, in place of the SMILES",
    )  # fmt: skip
    parser.add_argument(
        "--level", choices=get_args(Level), default="pcj0",
        help="pcj0: B3LYP/pcJ-0, near experiment; champs: B3LYP/6-31G(2df,p), the level of the "
        "competition's labels, some five times as slow; default: pcj0",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=cores(),
        help="processes of one thread each; default: the cores of this machine",
    )  # fmt: skip
    return parser


def work(jobs: Sequence[Job], pieces: Pieces, workers: int, outcome: Outcome) -> None:
    """Compute the molecules, storing each as soon as it is done.

    Raises BrokenProcessPool where a process was killed.
    """
    from equipoise.data.molecules.density_functional import NoCouplings

    if not jobs:
        return
    progress = tqdm(total=outcome.wanted, initial=outcome.done, unit="molecule", desc="couplings")
    with progress, processes(workers) as pool:
        futures = submitted(pool, jobs)
        for future in as_completed(futures):
            job = futures[future]
            try:
                pieces.store(future.result())
                outcome.done += 1
            except NoCouplings as reason:
                outcome.reasons[job.name] = str(reason)
                shown = f" ({job.smiles})" if job.smiles else ""
                progress.write(f"{job.name}{shown} failed: {reason}")
            progress.update()


@contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes with one thread each, ended at once by an exception in the block."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
    try:
        yield pool
    except BaseException:
        for process in list((pool._processes or {}).values()):  # there is no public way to end them
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def submitted(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> Mapping[Future[Calculated], Job]:
    """Hand out the molecules. A terminal's Ctrl-C reaches this process, and not those of the pool.

    They start here, and inherit the blocked signals.
    """
    from equipoise.data.molecules.density_functional import calculate

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return {pool.submit(calculate, job): job for job in jobs}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Let a process of the pool end when the main one, which then cannot stop it, is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def assemble(pieces: Pieces) -> None:
    """Write the csv files of all molecules in the folder, and print how to train on them."""
    molecules, couplings = pieces.write_tables()
    print(f"{pieces.folder}: {couplings:,} couplings of {molecules:,} molecules")
    if couplings:
        print(f"train on them with task=champs and task.path={pieces.folder}")
