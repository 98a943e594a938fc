"""Graphs of whole csv files: on all free cores, with progress, and cached for later runs."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from equipoise.data.folders import within
from equipoise.data.molecules.couplings import (
    Couplings,
    of_coupled_molecules,
    read_couplings,
    with_contributions,
)
from equipoise.data.molecules.features import chemistry, graphs_of
from equipoise.data.molecules.graphs import (
    FORMAT,
    Level,
    MoleculeGraphs,
    joined,
    read_stored,
    write_stored,
)
from equipoise.data.molecules.tables import Structures, read_structures
from equipoise.errors import UserError

PART = 256  # molecules that are looked at together
WORTH_PROCESSES = 20_000  # molecules: fewer are done before other processes would have started
PROGRESS_AFTER_SECONDS = 2.0
NAMED = 5  # molecules in a sentence about several


@dataclass(frozen=True)
class CouplingFiles:
    """Where structures, pairs and contributions are; without pairs: all that have a known type.

    labelled: whether the pairs have couplings.
    """

    structures: Path
    pairs: Path | None = None
    contributions: Path | None = None
    labelled: bool = True

    def key(self) -> str:
        """A value that changes with the files' contents, and with their readers' versions."""
        digest = hashlib.sha256(f"{FORMAT} {chemistry().rdBase.rdkitVersion}".encode())
        for file in (self.structures, self.pairs, self.contributions):
            digest.update(_sha256(file) if file is not None else b"none")
        digest.update(str(self.labelled).encode())
        return digest.hexdigest()[:24]

    def read(self) -> tuple[Structures, Couplings | None]:
        """The molecules that have pairs, and the pairs. Raises UserError if a file is wrong."""
        structures = read_structures(self.structures)
        if self.pairs is None:
            return structures, None
        couplings = read_couplings(self.pairs, structures, labelled=self.labelled)
        if self.contributions is not None:
            couplings = with_contributions(couplings, self.contributions, structures)
        return of_coupled_molecules(structures, couplings)


def prepared(files: CouplingFiles) -> MoleculeGraphs:
    """Read the files and compute the graphs. Raises UserError if that is impossible."""
    return graphs_in_parts(*files.read())


def stored_or_prepared(files: CouplingFiles, folder: Path | None) -> MoleculeGraphs:
    """The graphs as an earlier run's file has them; otherwise they are computed, and written to it.

    folder: of that file. None: beside the structures, or if that is read-only, among the user's
    cached files. Raises UserError if the input files are wrong, or `folder` cannot be written.
    """
    name = f"molecules-{files.key()}.arrow"
    beside = files.structures.parent
    kept = within(beside / ".equipoise", beside)
    folders = [folder] if folder else [kept, cache_of_user()]
    for place in folders:
        graphs = read_stored(place / name)
        if graphs is not None:
            return graphs
    graphs = prepared(files)
    for place in folders:
        try:
            write_stored(graphs, place / name)
        except OSError as error:
            problem = f"{place} cannot be written ({error.strerror or error})"
            continue
        return read_stored(place / name) or graphs
    if folder:
        raise UserError(f"{problem}: set task.cache_dir to another folder.")
    warnings.warn(f"{problem}, so the features are computed in every run", stacklevel=2)
    return graphs


def cache_of_user() -> Path:
    """Our folder among the user's cached files."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "equipoise" / "molecules"


def graphs_in_parts(
    structures: Structures, couplings: Couplings | None, processes: int | None = None
) -> MoleculeGraphs:
    """The graphs of molecules and of the pairs, sorted by molecule; without pairs, of all of them.

    processes: how many share the work; None: as many as are worthwhile. Raises UserError if rdkit
    is missing or a symbol is not an element.
    """
    count = len(structures.names)
    starts = range(0, count, PART)
    parts = [_part(structures, couplings, start, min(start + PART, count)) for start in starts]
    with tqdm(total=count, desc="features", unit="molecule", leave=False,
              delay=PROGRESS_AFTER_SECONDS, disable=None) as progress:  # fmt: skip
        found = []
        for graphs in _computed(parts, processes or processes_for(count)):
            found.append(graphs)
            progress.update(len(graphs))
    graphs = joined(found)
    return graphs if couplings is not None else _numbered(graphs)


def processes_for(molecules: int) -> int:
    """How many processes are worthwhile; 1 in a process that may not have child processes."""
    if molecules < WORTH_PROCESSES or multiprocessing.current_process().daemon:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Part = tuple[Structures, "Couplings | None"]


def _computed(parts: Sequence[Part], processes: int) -> Iterator[MoleculeGraphs]:
    if processes == 1:
        yield from (graphs_of(*part) for part in parts)
        return
    # a fresh interpreter each: a fork of this one would inherit the locks of torch's threads
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            structures, couplings = zip(*parts, strict=True)
            yield from pool.map(graphs_of, structures, couplings)
    except BrokenProcessPool as error:
        raise UserError(
            "A process that computed features was ended from outside, perhaps for lack of memory: "
            "free some, and start again."
        ) from error


def _part(structures: Structures, couplings: Couplings | None, first: int, last: int) -> Part:
    molecules = np.arange(first, last)
    if couplings is None:
        return structures.at(molecules), None
    ends = np.searchsorted(couplings.molecules, [first, last])
    some = couplings.at(np.arange(*ends))
    return structures.at(molecules), replace(some, molecules=some.molecules - first)


def _numbered(graphs: MoleculeGraphs) -> MoleculeGraphs:
    """The graphs with ids that count through the pairs of all molecules."""
    pairs = graphs.level("pair")
    coupled = pairs.columns["type"] > 0
    rows = np.where(coupled, coupled.cumsum() - 1, -1)
    level = Level(pairs.starts, {**pairs.columns, "row": rows}, pairs.labels)
    return replace(graphs, levels={**graphs.levels, "pair": level})


def _sha256(file: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    return digest.digest()


def named(names: Sequence[str]) -> str:
    """The first few of many names, in words."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
