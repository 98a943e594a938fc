"""Small translations as files, for the tests that read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

Pair = tuple[str, str]
GERMAN = ("ein Hund", "eine Katze schläft", "zwei Männer gehen", "der Fuchs", "das rote Haus")
ENGLISH = ("a dog", "a cat sleeps", "two men walk", "the fox", "the red house")
PAIRS = tuple(zip(GERMAN, ENGLISH, strict=True))


def write_jsonl(folder: Path, keys: Pair = ("de", "en"), **splits: Sequence[Pair]) -> Path:
    """Write <split>.jsonl, a line a pair, for each of the given splits."""
    for name, pairs in splits.items():
        rows = [json.dumps(dict(zip(keys, pair, strict=True))) for pair in pairs]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def write_lines(folder: Path, keys: Pair = ("de", "en"), **splits: Sequence[Pair]) -> Path:
    """Write <split>.<key> for both languages, a line a sentence, for each of the given splits."""
    for name, pairs in splits.items():
        for key, side in zip(keys, zip(*pairs, strict=True), strict=True):
            text = "".join(f"{line}\n" for line in side)
            (folder / f"{name}.{key}").write_text(text, encoding="utf-8")
    return folder
