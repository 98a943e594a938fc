"""The Penn Treebank by words and by characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.data.text.penn_treebank import PennTreebank, PennTreebankCharacters
from equipoise.errors import UserError
from tests.data.text.text_writing import write_texts

SENTENCES = " no it was n't <unk> monday \n"


def test_words_of_the_published_files(tmp_path: Path) -> None:
    texts = dict.fromkeys(("train", "valid", "test"), SENTENCES * 300)
    data = PennTreebank(path=str(write_texts(tmp_path, "ptb.{}.txt", **texts)))
    assert data.inspect() == {"vocabulary": 7}
    assert data.corpus.vocabulary.decode(data.corpus.splits["val"].tokens.tolist()[:7]) == (
        "no it was n't <unk> monday\n"
    )


def test_characters_are_joined_and_underscores_are_spaces(tmp_path: Path) -> None:
    text = "n o _ i t _ w a s\n" * 800
    texts = dict.fromkeys(("train", "valid", "test"), text)
    data = PennTreebankCharacters(path=str(write_texts(tmp_path, "ptb.char.{}.txt", **texts)))
    assert data.inspect() == {"vocabulary": len(set("no it was\n")) + 1}
    tokens = data.corpus.splits["test"].tokens.tolist()
    assert data.corpus.vocabulary.decode(tokens[:10]) == "no it was\n"


@pytest.mark.parametrize(
    ("kind", "named"), [(PennTreebank, "ptb"), (PennTreebankCharacters, "ptb.char")]
)
def test_without_a_path_the_error_names_the_files(kind: type, named: str) -> None:
    with pytest.raises(UserError, match=rf"set task.path to the folder with {named}.train.txt"):
        kind().inspect()
