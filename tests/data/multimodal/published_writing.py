"""Small sets in the published layout, for the tests that read them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"train": 12, "valid": 4, "test": 6}
STEPS = {"text": 5, "audio": 9, "vision": 7}
WIDTHS = {"text": 6, "audio": 3, "vision": 4}
Content = dict[str, dict[str, Any]]


def sentiment(dtype: str = "float32", *, aligned: bool = False) -> Content:
    """Splits of random streams and scores, with the names of the samples."""
    generator = np.random.default_rng(0)
    content: Content = {}
    for split, count in SIZES.items():
        content[split] = {
            key: generator.normal(size=(count, 5 if aligned else steps, WIDTHS[key])).astype(dtype)
            for key, steps in STEPS.items()
        }
        content[split]["labels"] = generator.uniform(-3, 3, (count, 1, 1))
        rows = [[f"{split}{row}".encode(), b"1.5", b"2.25"] for row in range(count)]
        content[split]["id"] = np.array(rows)
    return content


def emotions() -> Content:
    """The same streams with four emotions for each sample, and no names."""
    generator = np.random.default_rng(1)
    content = sentiment()
    for split, count in SIZES.items():
        present = generator.integers(0, 2, (count, 4))
        content[split]["labels"] = np.eye(2)[present]
        del content[split]["id"]
    return content


def write(folder: Path, content: Any, name: str = "mosi_data_noalign.pkl") -> Path:
    """Write a pickle; returns its path."""
    file = folder / name
    file.write_bytes(pickle.dumps(content))
    return file
