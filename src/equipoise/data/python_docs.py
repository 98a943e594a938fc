"""Characters of the Python language reference, bundled.

`python_docs_text/topics.txt.gz` holds the topics of `pydoc_data.topics` of Python 3.11.7 in
alphabetical order, joined by line feeds. It is bundled because the text of the standard library
changes with its version. Copyright of the Python Software Foundation, under the licence beside it.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from importlib.resources import files

from equipoise.data.corpus import Corpus, encode
from equipoise.data.image_data_module import SplitName, check_fraction
from equipoise.data.text_data_module import TextDataModule
from equipoise.data.text_files import SPLITS
from equipoise.data.vocabulary import Characters
from equipoise.errors import UserError

SHA256 = "2a95af4ac93f5b719944030ce3769070ddf827d847cba42192afa8da989e5dc4"


class PythonDocs(TextDataModule):
    """The language reference, 465,048 characters, 103 different ones.

    Its parts follow each other: training, then `val_fraction`, then `test_fraction` of the
    characters.
    """

    def __init__(
        self,
        *,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        segment_length: int = 64,
        eval_segment_length: int | None = None,
        memory_length: int = 64,
        eval_memory_length: int | None = 128,
        vocabulary: int | None = None,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            segment_length=segment_length,
            eval_segment_length=eval_segment_length,
            memory_length=memory_length,
            eval_memory_length=eval_memory_length,
            vocabulary=vocabulary,
        )
        check_fraction("val_fraction", val_fraction)
        check_fraction("test_fraction", test_fraction)
        check_fraction("val_fraction + task.test_fraction", val_fraction + test_fraction)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

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
    """Return the bundled text. Raises UserError where the file is not the one of our release."""
    packed = files("equipoise.data").joinpath("python_docs_text/topics.txt.gz").read_bytes()
    try:
        text = gzip.decompress(packed)
    except (OSError, EOFError) as error:
        raise UserError(
            f"The bundled text is damaged ({error}): install equipoise anew."
        ) from error
    if hashlib.sha256(text).hexdigest() != SHA256:
        raise UserError("The bundled text has been changed: install equipoise anew.")
    return text.decode()


def consecutive_parts(text: str, val_fraction: float, test_fraction: float) -> dict[SplitName, str]:
    """Divide a text into train, val and test, which follow each other; 0: the neighbour's part.

    Without a test part test is validation, without a validation part validation is test; without
    both they are the training text.
    """
    val_length, test_length = (round(part * len(text)) for part in (val_fraction, test_fraction))
    end = len(text) - test_length
    train, val, test = text[: end - val_length], text[end - val_length : end], text[end:]
    return {"train": train, "val": val or test or train, "test": test or val or train}
