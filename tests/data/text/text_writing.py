"""Small texts in the published layouts, for the tests that read them."""

from __future__ import annotations

from pathlib import Path

TRAIN = "\n = Fox = \n\n the quick fox and the dog and the <unk> \n a fox \n"
VALID = " the cat and the fox \n"
TEST = " a dog and a bird \n the fox \n"


def write_texts(folder: Path, layout: str = "wiki.{}.tokens", **texts: str) -> Path:
    """Write train, valid and test into a folder, the given ones in place of those above."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {"train": TRAIN, "valid": VALID, "test": TEST, **texts}
    for name, text in written.items():
        (folder / layout.format(name)).write_text(text, encoding="utf-8")
    return folder
