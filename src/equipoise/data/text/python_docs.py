"""Characters of the Python language reference, bundled.

`python_docs_text/topics.txt.gz` holds the topics of `pydoc_data.topics` of Python 3.11.7 in
alphabetical order, joined by line feeds. It is bundled because the text of the standard library
changes with its version. Copyright of the Python Software Foundation; its licence is included.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from equipoise.data.module import SPLITS
from equipoise.data.text.files import check_held_out, consecutive_parts
from equipoise.data.text.module import Corpus, TextDataModule, encode
from equipoise.data.text.vocabulary import Characters
from equipoise.errors import UserError

SHA256 = "2a95af4ac93f5b719944030ce3769070ddf827d847cba42192afa8da989e5dc4"


@dataclass(kw_only=True, eq=False)
class PythonDocs(TextDataModule):
    """The language reference, 465,048 characters, 103 different ones.

    Its parts are consecutive: training, then `val_fraction`, then `test_fraction` of the
    characters.
    """

    batch_size: int = 16
    segment_length: int = 64
    memory_length: int = 64
    eval_memory_length: int | None = 128
    val_fraction: float = 0.05
    test_fraction: float = 0.05

    def __post_init__(self) -> None:
        """Check the settings; raises UserError."""
        super().__post_init__()
        check_held_out(self.val_fraction, self.test_fraction)

    def read_corpus(self) -> Corpus:
        """Unpack and divide the text."""
        text = language_reference()
        parts = consecutive_parts(text, self.val_fraction, self.test_fraction)
        vocabulary = Characters.of(parts["train"])
        return Corpus(
            vocabulary,
            {n: encode(parts[n], vocabulary, f"python_docs ({n})") for n in SPLITS},
        )


@lru_cache(maxsize=1)
def language_reference() -> str:
    """The bundled text. Raises UserError if the file is not the one of our release."""
    packed = files("equipoise.data.text").joinpath("python_docs_text/topics.txt.gz").read_bytes()
    try:
        text = gzip.decompress(packed)
    except (OSError, EOFError) as error:
        raise UserError(f"The bundled text is damaged ({error}): reinstall equipoise.") from error
    if hashlib.sha256(text).hexdigest() != SHA256:
        raise UserError("The bundled text has been changed: reinstall equipoise.")
    return text.decode()
