"""Pairs of sentences as they are stored: lines of JSON, two files of lines, rows of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import datasets

from equipoise.data.folders import files_in
from equipoise.data.module import SplitName
from equipoise.data.text.files import PUBLISHED_NAMES, read_utf8, split_file, with_line_feeds
from equipoise.data.text.sentence_pairs import Languages, SentencePairs
from equipoise.data.text.vocabulary import lines
from equipoise.errors import UserError, nearest, refuse_above

JSON_LINES = "{}.jsonl"
NESTED = "translation"
"""The key under which a row of published datasets has its languages."""
NO_LANGUAGES = frozenset({
    "arrow", "bin", "bz2", "csv", "gz", "idx", "json", "jsonl", "log", "md", "parquet", "pt",
    "sgm", "tsv", "txt", "xml", "xz", "zip",
})  # fmt: skip
"""Endings that do not name a language."""


class StoredSplit(Protocol):
    """The pairs of one split as they are stored. unit: what holds a pair, "line" or "row"."""

    unit: str
    ordered: bool

    def keys(self) -> list[str]:
        """The available languages, in their original order if `ordered`."""
        ...

    def place(self, languages: Sequence[str]) -> str:
        """How messages refer to the place of these languages."""
        ...

    def rows(self, languages: Languages) -> Iterator[tuple[int, Any, Any]]:
        """Yield the number of each line or row, and the text of each side, None if missing."""
        ...


class JsonLines:
    """A file with an object {"de": "...", "en": "..."} a line; blank lines are skipped.

    The languages may also be nested under "translation", as in published datasets.
    """

    unit = "line"
    ordered = True

    def __init__(self, file: Path) -> None:
        self.files = [file]

    def keys(self) -> list[str]:
        """The keys of the first line."""
        return list(self._objects[0][1])

    def place(self, languages: Sequence[str]) -> str:
        """The file."""
        return str(self.files[0])

    def rows(self, languages: Languages) -> Iterator[tuple[int, Any, Any]]:
        """Yield number and sides of each line. Raises UserError if one is not an object."""
        source, target = languages
        for number, entry in self._objects:
            yield number, entry.get(source), entry.get(target)

    @cached_property
    def _objects(self) -> list[tuple[int, dict[str, Any]]]:
        numbered = enumerate(lines(read_utf8(self.files[0])), start=1)
        return [(number, self._object(number, line)) for number, line in numbered if line.strip()]

    def _object(self, number: int, line: str) -> dict[str, Any]:
        refuse_above("line_bytes", len(line), f"Line {number} of {self.files[0]} has")
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise UserError(
                f"Line {number} of {self.files[0]} is no JSON object such as "
                '{"de": "...", "en": "..."}: correct it, or leave the line out.'
            )
        return entry[NESTED] if isinstance(entry.get(NESTED), dict) else entry


class TextFiles:
    """Files of lines, one for each language, such as train.de and train.en.

    The languages are in alphabetical order, which has no meaning: if there are more than two, those
    to use have to be named.
    """

    unit = "line"
    ordered = False

    def __init__(self, by_language: Mapping[str, Path]) -> None:
        self.by_language = by_language
        self.files = list(by_language.values())

    def keys(self) -> list[str]:
        """The endings of the files."""
        return sorted(self.by_language)

    def place(self, languages: Sequence[str]) -> str:
        """The files."""
        first, *others = (self.by_language[language] for language in languages)
        return " and ".join([str(first), *(file.name for file in others)])

    def rows(self, languages: Languages) -> Iterator[tuple[int, Any, Any]]:
        """Yield number and sides of each line. Raises UserError if one file has more lines."""
        files = [self.by_language[language] for language in languages]
        source, target = ([*lines(read_utf8(file))] for file in files)
        if len(source) != len(target):
            raise UserError(
                f"{files[0]} has {len(source):,} lines and {files[1].name} has {len(target):,}: "
                "line by line they must translate each other, so give both as many."
            )
        for number, sides in enumerate(zip(source, target, strict=True), start=1):
            yield number, *sides


class TableRows:
    """A split of a table, with a column for each language or one column "translation" of both."""

    unit = "row"
    ordered = True

    def __init__(self, table: datasets.Dataset, name: str) -> None:
        self.table = table
        self.name = name

    def keys(self) -> list[str]:
        """The columns, or the keys of the first translation. Raises UserError without a row."""
        if not len(self.table):
            raise UserError(f"{self.name} has no rows: fetch it again.")
        return list(self._unnested(self.table[0]))

    def place(self, languages: Sequence[str]) -> str:
        """The split."""
        return self.name

    def rows(self, languages: Languages) -> Iterator[tuple[int, Any, Any]]:
        """Yield number and sides of each row."""
        source, target = languages
        for number, row in enumerate(self.table, start=1):
            sides = self._unnested(row)
            yield number, sides.get(source), sides.get(target)

    def _unnested(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        nested = row.get(NESTED)
        return nested if isinstance(nested, Mapping) else row


def stored_split(folder: Path, name: SplitName) -> JsonLines | TextFiles | None:
    """The files of a split, <name>.jsonl or <name>[.anything].<language>; None if there are none.

    Raises UserError if there are two of the same kind.
    """
    file = split_file(folder, JSON_LINES, name)
    if file is not None:
        return JsonLines(file)
    by_language: dict[str, Path] = {}
    for candidate in files_in(folder):
        first, _, others = candidate.partition(".")
        language = others.rpartition(".")[2]
        if first.lower() not in PUBLISHED_NAMES[name] or language.lower() in NO_LANGUAGES:
            continue
        if language in by_language:
            raise UserError(
                f"The folder {folder} has {by_language[language].name} and {candidate} for {name}: "
                "keep one of them there."
            )
        by_language[language] = folder / candidate
    return TextFiles(by_language) if by_language else None


def chosen_languages(split: StoredSplit, source: str | None, target: str | None) -> Languages:
    """The languages to read: the given ones, else the first two of the split.

    Raises UserError if the split lacks them, or if it is unclear which are meant.
    """
    keys = split.keys()
    for key, language in (("source", source), ("target", target)):
        if language is not None and language not in keys:
            raise UserError(
                f"task.{key}={language} is no language of {split.place(keys)}, which has "
                f"{', '.join(keys)}{nearest(language, keys)}"
            )
    free = [key for key in keys if key not in (source, target)]
    wanted = (source, target).count(None)
    if len(free) < wanted or (len(free) > wanted > 0 and not split.ordered):
        few = len(free) < wanted
        raise UserError(
            f"{split.place(keys)} {'is' if few else 'are'} in {', '.join(keys)}: "
            + ("add a second language." if few else "say which with task.source and task.target.")
        )
    return source or free.pop(0), target or free.pop(0)


def read_pairs(name: SplitName, split: StoredSplit, languages: Languages) -> SentencePairs:
    """The pairs of a split, without white space around their sentences.

    Training pairs with an empty side are left out and counted. Raises UserError if validation or
    test have one, since no score could count it, or if a side is not text.
    """
    chosen_languages(split, *languages)
    place = split.place(languages)
    sides: tuple[list[str], list[str]] = ([], [])
    empty = 0
    for number, *values in split.rows(languages):
        where = f"{split.unit.capitalize()} {number} of {place}"
        pair = [_sentence(v, where, at) for v, at in zip(values, languages, strict=True)]
        if all(pair):
            for side, sentence in zip(sides, pair, strict=True):
                side.append(sentence)
        elif name == "train":
            empty += 1
        else:
            missing = languages[bool(pair[0])]
            raise UserError(
                f"{where} is empty in {missing}, so {name} could not count it: fill it in, or "
                f"take the {split.unit} out on both sides."
            )
    if not sides[0]:
        raise UserError(f"{place} has no pair with text on both sides: fetch it again.")
    return SentencePairs(*sides, place, empty)


def _sentence(value: Any, where: str, language: str) -> str:
    """A sentence in one line. Raises UserError if the value is not text."""
    if not isinstance(value, str):
        raise UserError(
            f"{where} has no text under {language}: give it a string, leave the line out, or "
            "choose other keys by task.source and task.target."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} has half a character under {language}: correct it, or leave the whole out."
        ) from error
    return with_line_feeds(value).replace("\n", " ").strip()
