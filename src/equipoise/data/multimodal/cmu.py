"""CMU-MOSI, CMU-MOSEI and IEMOCAP, as published by the authors of MulT, or converted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from equipoise.data.folders import expanded, named, required_path, within
from equipoise.data.module import SplitName
from equipoise.data.multimodal.module import MultimodalDataModule, MultimodalSamples
from equipoise.data.multimodal.published import (
    EMOTIONS,
    NonFinite,
    PublishedSet,
    Shapes,
    read_published,
)
from equipoise.data.multimodal.stored import ENDING, read_stored
from equipoise.errors import UserError

PICKLE = ".pkl"


@dataclass(kw_only=True, eq=False)
class PublishedMultimodal(MultimodalDataModule):
    """One of the published sets, in a pickle or in the file that convert-multimodal made of it.

    path: the file, or a folder with it, in which the converted one takes precedence. aligned:
    whether the steps of the three modalities correspond, word by word; in a folder this selects the
    file. non_finite: "published" replaces -inf in audio by 0 and refuses other values that are not
    finite; "zero" replaces all of them. A converted file holds what was chosen at conversion.

    Source: Tsai et al. 2019, Multimodal Transformer for Unaligned Multimodal Language Sequences
    (arXiv 1906.00295).
    """

    task: ClassVar[str]
    stem: ClassVar[str]

    path: str | None = None
    batch_size: int = 24
    aligned: bool = False
    non_finite: NonFinite = "published"

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        self._content: PublishedSet | None = None

    @property
    def content(self) -> PublishedSet:
        """All splits, read when they are first needed; raises UserError if they cannot be."""
        if self._content is None:
            file = self.file()
            state = file.stat()
            content = read_set(file, (state.st_mtime_ns, state.st_size), self.non_finite)
            self._check(content, file)
            self._content = content
        return self._content

    def file(self) -> Path:
        """The file that `path` names or contains; raises UserError if there is none."""
        stem = f"{self.stem}_data" + ("" if self.aligned else "_noalign")
        names = [stem + ENDING, stem + PICKLE]
        advice = f"set task.path to {names[1]}, or to the folder with it"
        place = expanded(
            required_path(
                self.path,
                f"task={self.task} needs the published {names[1]}: fetch it, and {advice}",
            )
        )
        if place.is_file():
            return place
        found = [place / name for name in names if (place / name).is_file()]
        if found:
            return within(found[0], named(place))
        other = f"{self.stem}_data" + ("_noalign" if self.aligned else "")
        if any((place / (other + ending)).is_file() for ending in (ENDING, PICKLE)):
            advice = f"set task.aligned={str(not self.aligned).lower()} for {other}"
        if not place.is_dir():
            raise UserError(f"{place} does not exist: {advice}")
        raise UserError(f"{place} has neither {names[0]} nor {names[1]}: {advice}")

    def shapes(self) -> Shapes:
        """Steps and width of each modality."""
        return self.content.shapes

    def read_split(self, name: SplitName) -> MultimodalSamples:
        """One split."""
        return self.content.splits[name]

    def identifiers(self, name: SplitName) -> list[str]:
        """The name of each sample, such as video and seconds; empty if the file has none."""
        return self.content.identifiers[name]

    def described(self) -> str:
        """The sizes in words, and how many values were replaced."""
        totals: dict[str, int] = {}
        for counts in self.content.replaced.values():
            for modality, count in counts.items():
                totals[modality] = totals.get(modality, 0) + count
        replaced = [f"{count:,} of {modality}" for modality, count in totals.items() if count]
        note = f"; 0 replaces values that are not finite: {', '.join(replaced)}" if replaced else ""
        return super().described() + note

    def facts(self, name: SplitName) -> dict[str, Any]:
        """Notes about a split beside its result."""
        replaced = dict(self.content.replaced[name])
        return {**super().facts(name), "file": self.file().name, "replaced": replaced}

    def _check(self, content: PublishedSet, file: Path) -> None:
        """Raise UserError if the file holds another set, or if its steps are not aligned."""
        if content.emotions != self.emotions:
            kinds = {0: "a score of sentiment", EMOTIONS: f"{EMOTIONS} emotions"}
            raise UserError(
                f"{file} is labelled with {kinds[content.emotions]}, but task={self.task} needs "
                f"{kinds[self.emotions]}: choose the task that the file belongs to"
            )
        lengths = {steps for steps, _ in content.shapes.values()}
        if self.aligned and len(lengths) > 1:
            raise UserError(
                f"{file} has {', '.join(map(str, sorted(lengths)))} steps, so its modalities are "
                "not aligned: set task.aligned=false, or give the aligned file"
            )


@dataclass(kw_only=True, eq=False)
class Mosi(PublishedMultimodal):
    """CMU-MOSI: the sentiment, from -3 to 3, of 2,199 pieces of videos."""

    task: ClassVar[str] = "mosi"
    stem: ClassVar[str] = "mosi"


@dataclass(kw_only=True, eq=False)
class Mosei(PublishedMultimodal):
    """CMU-MOSEI: the sentiment, from -3 to 3, of 22,856 pieces of videos."""

    task: ClassVar[str] = "mosei"
    stem: ClassVar[str] = "mosei_senti"


@dataclass(kw_only=True, eq=False)
class Iemocap(PublishedMultimodal):
    """IEMOCAP: whether each of four emotions is present in 4,453 pieces of dialogues."""

    task: ClassVar[str] = "iemocap"
    stem: ClassVar[str] = "iemocap"
    emotions: ClassVar[int] = EMOTIONS


@lru_cache(maxsize=1)
def read_set(file: Path, _stamp: tuple[int, int], non_finite: NonFinite) -> PublishedSet:
    """The content of a file, pickle or converted; the latest one is kept."""
    if file.suffix == ENDING:
        return read_stored(file)
    return read_published(file, non_finite)
