"""The folder of computed molecules: one JSON file for each, and the csv files of them all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from equipoise.data.molecules.density_functional.calculation import TABLES, Calculated, Job
from equipoise.errors import UserError, read_json

PIECE = ".json"
IDS_IN = "train.csv"


@dataclass(frozen=True)
class Pieces:
    """The results computed into a folder, which need not exist yet."""

    folder: Path

    @property
    def place(self) -> Path:
        """Where the JSON files are."""
        return self.folder / "pieces"

    def __iter__(self) -> Iterator[Calculated]:
        """All results, by the names of their files. Raises UserError if one cannot be read."""
        for file in sorted(self.place.glob(f"*{PIECE}")):
            try:
                yield Calculated(**read_json(file))
            except (OSError, ValueError, TypeError) as error:
                raise UserError(
                    f"{file} is damaged ({error}): delete it, and run the command again"
                ) from error

    def store(self, calculated: Calculated) -> None:
        """Write a result, whole or not at all."""
        target = self.place / f"{quote(calculated.name, safe='')}{PIECE}"
        unfinished = target.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(calculated)))
        os.replace(unfinished, target)

    def prepare(self, jobs: Sequence[Job]) -> set[str]:
        """Create the folder if it is missing; returns the names of the jobs that it has results of.

        Raises UserError if it cannot be written, or belongs to something else: to another level, to
        other molecules of the same names, or to files of another origin.
        """
        foreign = [name for name in TABLES if (self.folder / name).exists()]
        if foreign and not self.place.is_dir():
            raise UserError(
                f"{self.folder} has a {foreign[0]} of another origin: choose a new folder"
            )
        try:
            self.place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror}): choose another folder"
            ) from error
        by_name = {job.name: job for job in jobs}
        found = {piece.name for piece in self if self._fits(piece, jobs[0], by_name)}
        return found & set(by_name)

    def _fits(self, piece: Calculated, any_job: Job, jobs: dict[str, Job]) -> bool:
        if piece.level != any_job.level:
            raise UserError(
                f"{self.folder} was computed with --level {piece.level}, and levels must not be "
                "mixed: choose a new folder"
            )
        if piece.name in jobs and not piece.answers(jobs[piece.name]):
            raise UserError(
                f"{self.folder} has another molecule named {piece.name}: choose a new folder, or "
                "other names"
            )
        return True

    def write_tables(self) -> tuple[int, int]:
        """Write all of `TABLES`; returns the numbers of molecules and of couplings.

        No file is replaced before all are complete, or if there is no result. Raises UserError for
        a damaged one.
        """
        unfinished = {name: self.folder / f"{name}.unfinished" for name in TABLES}
        molecules = couplings = 0
        with ExitStack() as files:
            writers = {}
            for name, columns in TABLES.items():
                table = unfinished[name].open("w", newline="", encoding="utf-8")
                writers[name] = csv.writer(files.enter_context(table), lineterminator="\n")
                writers[name].writerow(columns)
            for piece in self:
                molecules += 1
                for name, row in piece.rows():
                    if name == IDS_IN:
                        row = [couplings, *row]
                        couplings += 1
                    writers[name].writerow(row)
        for name, file in unfinished.items():
            if molecules:
                os.replace(file, self.folder / name)
            else:
                file.unlink()
        return molecules, couplings
