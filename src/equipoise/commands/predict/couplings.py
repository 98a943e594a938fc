"""Predicts the couplings of molecules: from csv files through a network to a table."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.commands.predict.job import Job, whole_file
from equipoise.data.molecules.batches import MoleculeBatches
from equipoise.data.molecules.couplings import COUPLING, of_coupled_molecules, read_couplings
from equipoise.data.molecules.graphs import LEVELS, MoleculeGraphs
from equipoise.data.molecules.preparation import graphs_in_parts, named
from equipoise.data.molecules.tables import CONTRIBUTIONS, TYPES, read_structures
from equipoise.data.molecules.vocabulary import Vocabulary, vocabulary_from_state
from equipoise.data.sampling import BatchIndex
from equipoise.errors import UserError
from equipoise.running.build import restored_task
from equipoise.running.prediction import Convergence, outputs
from equipoise.running.run_checkpoint import StoredRun, restored

SETTINGS = frozenset({"pairs", "max_pairs", "workers"})
BATCH_SIZE = 32
ALL = "all"
DECIMALS = 6
"""Format of a coupling in Hz."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Molecules, and the ids (C,) of the couplings to predict, in the order of the output.

    file: the one that names the couplings; None for all couplings of the molecules.
    """

    graphs: MoleculeGraphs
    ids: NDArray[np.int64]
    file: Path | None

    @property
    def rows(self) -> NDArray[np.int64]:
        """The molecules that have couplings."""
        pairs = self.graphs.level("pair")
        molecules = np.repeat(np.arange(len(self.graphs)), pairs.counts)
        return np.unique(molecules[pairs.columns["type"] > 0])


def predict(job: Job) -> str:
    """Write the couplings of the molecules in a file, and return a line on what was predicted.

    Raises UserError where the files are not in order, or the checkpoint cannot be used.
    """
    request = job.request
    if request.workers is not None and request.workers < 1:
        raise UserError(f"predict: workers={request.workers} must be 1 or more")
    task, device = restored(restored_task, job.checkpoint, request.device, request.trust)
    convergence = Convergence(task)
    with whole_file(job.target, request.overwrite) as target:
        said = write_couplings(job, task, device, target)
    return ", ".join(part for part in (said, convergence.described()) if part)


def write_couplings(job: Job, task: Any, device: torch.device, target: IO[str]) -> str:
    """The same with the checkpoint's task on the device, whose `in_hertz` predicts a batch."""
    vocabulary = vocabulary_of(job.checkpoint)
    request = job.request
    asked = read_asked(structures_of(job.files), request.pairs, request.workers)
    limit = request.max_pairs or int(job.checkpoint.run.config["task"]["max_pairs"])
    batches = MoleculeBatches(asked.graphs, asked.rows, vocabulary, limit)
    kinds = getattr(task.model, "kinds", LEVELS)
    for warning in oddities(batches, vocabulary, kinds):
        print(f"warning: {warning}", file=sys.stderr)
    write(
        target, asked, predicted(task, batches, asked.ids, device, request.batch_size or BATCH_SIZE)
    )
    return ", ".join(described(asked))


def vocabulary_of(checkpoint: StoredRun) -> Vocabulary:
    """The labels seen in training. Raises UserError where the checkpoint has none."""
    state = checkpoint.state.get("labels")
    if not state:
        raise UserError(
            f"the checkpoint {checkpoint.run.path} has no labels of atoms and pairs: predict needs "
            "one written by a training run"
        )
    return vocabulary_from_state(state)


def structures_of(files: Sequence[Path]) -> Path:
    """The only file of structures, or a folder's. Raises UserError for none or several."""
    if len(files) != 1:
        several = ", ".join(map(str, files)) or "none"
        raise UserError(
            f"predict takes one file of structures, such as structures.csv, not {several}"
        )
    return files[0] / "structures.csv" if files[0].is_dir() else files[0]


def read_asked(structures_file: Path, pairs: str | None, processes: int | None) -> Asked:
    """The molecules that have pairs to predict. Raises UserError where there are none."""
    file = pairs_file(structures_file, pairs)
    structures = read_structures(structures_file)
    if file is not None:
        couplings = read_couplings(file, structures, labelled=False)
        graphs = graphs_in_parts(*of_coupled_molecules(structures, couplings), processes)
        return Asked(graphs, couplings.ids, file)
    graphs = graphs_in_parts(structures, None, processes)
    count = int((graphs.level("pair").columns["type"] > 0).sum())
    if not count:
        raise UserError(
            f"{structures_file} has no pair of a hydrogen with a hydrogen, carbon or nitrogen over "
            "one to three bonds, so there is nothing to predict"
        )
    return Asked(graphs, np.arange(count), None)


def pairs_file(structures: Path, pairs: str | None) -> Path | None:
    """The file that names the pairs, None for all of them."""
    if pairs is not None:
        return None if pairs == ALL else Path(pairs)
    beside = structures.with_name("test.csv")
    return beside if beside.is_file() else None


def oddities(
    batches: MoleculeBatches, vocabulary: Vocabulary, kinds: Sequence[str]
) -> Iterator[str]:
    """Warnings about the molecules that a user should read before relying on predictions.

    kinds: the levels whose labels the network reads.
    """
    graphs = batches.graphs
    types = graphs.level("pair").columns["type"]
    counts = dict(zip(TYPES, np.bincount(types, minlength=1 + len(TYPES))[1:], strict=True))
    unseen = [f"{n:,} {name}" for name, n in counts.items() if n and name not in vocabulary.types]
    if unseen:
        yield f"training had none of these couplings, which become 0: {', '.join(unseen)}"
    unknown = []
    for name in kinds:
        read = graphs.items_of(name, batches.rows)
        codes = graphs.level(name).columns["label"][read]
        known = [ids[code] > 0 for ids, code in zip(batches.ids[name], codes.T, strict=True)]
        count = int((~np.all(known, axis=0)).sum())
        unknown += [f"{count:,} of {len(codes):,} {name}s"] if count else []
    if unknown:
        yield f"labels that training did not have count as unknown: {', '.join(unknown)}"


def predicted(
    task: Any,
    batches: MoleculeBatches,
    ids: NDArray[np.int64],
    device: torch.device,
    batch_size: int,
) -> NDArray[np.float64]:
    """The couplings (C, K) of these ids, in Hz. Raises UserError where one is not finite."""
    # the largest molecules first: if they do not fit into memory, this fails at once
    order = batches.lengths.argsort(descending=True, stable=True).split(batch_size)
    found: list[tuple[NDArray, NDArray]] = []
    content = (batches[BatchIndex(0, rows)] for rows in order)
    for batch, (couplings, _, _) in outputs(
        task.in_hertz, content, device, total=len(batches), unit="molecule"
    ):
        _refuse_infinite(batch, couplings, batches)
        found.append((batch["row"][batch["type"] > 0].cpu().numpy(), couplings.cpu().numpy()))
    rows, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    sorted_rows = rows.argsort()
    places = sorted_rows[np.searchsorted(rows, ids, sorter=sorted_rows)]
    ordered: NDArray[np.float64] = values[places].astype(np.float64)
    return ordered


def _refuse_infinite(batch: dict[str, Tensor], couplings: Tensor, batches: MoleculeBatches) -> None:
    wrong = ~couplings.isfinite().all(dim=1)
    if wrong.any():
        molecule = batch["index"][(batch["type"] > 0).nonzero()[wrong, 0]].unique().tolist()
        names = [batches.graphs.names[batches.rows[row]] for row in molecule]
        raise UserError(
            f"the network finds no finite coupling for {named(names)}: use a checkpoint of a run "
            "that did not diverge, or leave out these molecules"
        )


def write(target: IO[str], asked: Asked, couplings: NDArray[np.float64]) -> None:
    """Write ids and couplings; for all pairs also their atoms, types and contributions."""
    values = couplings.round(DECIMALS).T.tolist()
    names = [COUPLING, *CONTRIBUTIONS][: len(values)]
    columns: dict[str, list[Any]] = {"id": asked.ids.tolist()}
    if asked.file is None:
        columns |= {**pair_columns(asked.graphs), **dict(zip(names, values, strict=True))}
    else:
        columns[COUPLING] = values[0]
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def pair_columns(graphs: MoleculeGraphs) -> dict[str, list[Any]]:
    """Molecule, atoms and type of all couplings, in the order of their ids."""
    pairs = graphs.level("pair")
    chosen = np.flatnonzero(pairs.columns["type"] > 0)
    chosen = chosen[pairs.columns["row"][chosen].argsort()]
    molecules = np.repeat(np.arange(len(graphs)), pairs.counts)[chosen]
    atoms = pairs.columns["atoms"][chosen]
    return {
        "molecule_name": [graphs.names[molecule] for molecule in molecules],
        "atom_index_0": atoms[:, 0].tolist(),
        "atom_index_1": atoms[:, 1].tolist(),
        "type": [TYPES[kind - 1] for kind in pairs.columns["type"][chosen]],
    }


def described(asked: Asked) -> Iterator[str]:
    """How much was predicted, and what had to be guessed for that."""
    graphs = asked.graphs
    yield f"couplings: {len(asked.ids):,} ({asked.file or 'all of the types'})"
    yield f"molecules: {len(asked.rows):,}"
    odd = [graphs.names[row] for row in asked.rows if graphs.by_radii[row]]
    yield f"bonds from covalent radii alone: {len(odd):,}" + (f" ({named(odd)})" if odd else "")
