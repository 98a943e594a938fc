"""Numbers in words: drawn by the seed, no number in two splits, any two languages."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from equipoise.data.text.number_words import NumberWords
from equipoise.errors import UserError

pytest.importorskip("tokenizers")
pytest.importorskip("num2words")


def numbers(**settings: Any) -> NumberWords:
    sizes = {"train_size": 60, "val_size": 20, "test_size": 20, "largest": 99}
    return NumberWords(**{**sizes, "subwords": 300, **settings})


def test_every_number_is_in_one_split_and_written_in_both_languages() -> None:
    splits = numbers().corpus.splits
    assert [len(splits[name]) for name in ("train", "val", "test")] == [60, 20, 20]
    pairs = [p for split in splits.values() for p in zip(split.source, split.target, strict=True)]
    assert len(set(pairs)) == 100
    assert ("twenty-one", "einundzwanzig") in pairs
    assert ("zero", "null") in pairs


def test_the_seed_draws_them() -> None:
    def drawn(seed: int) -> list[str]:
        return list(numbers(seed=seed, largest=9999).corpus.splits["test"].source)

    assert drawn(1) == drawn(1) != drawn(2)


def test_small_numbers_are_among_them() -> None:
    splits = numbers(train_size=1000, largest=999_999).corpus.splits
    words = {text for split in splits.values() for text in split.source}
    assert {"zero", "one", "two", "three"} <= words
    assert sum("thousand" not in text for text in words) > 150
    assert sum("hundred" in text and "thousand" in text for text in words) > 400


def test_other_languages_can_be_chosen() -> None:
    data = numbers(source="fr", target="en")
    assert data.languages == ("fr", "en")
    data.setup("test")
    assert ("vingt-cinq", "twenty-five") in [
        pair for name in ("train", "val", "test") for pair in data.sentences(name)
    ]
    assert data.facts("test")["text"] == "number_words (test)"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target": "deu"}, r"task.target=deu is not a language that .*did you mean de\?"),
        ({"largest": 98}, r"ask for 100 different numbers, but up to task.largest=98 there are 99"),
        ({"test_size": 0}, r"task.test_size is 0: set it to 1 or more"),
        ({"source": "de"}, r"task.source and task.target are both de"),
        ({"largest": 10**15, "seed": 1, "target": "te"}, r"cannot write .* in te .*task.largest"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        numbers(**settings).inspect()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "num2words", None)
    with pytest.raises(UserError, match=r"num2words: pip install 'equipoise\[translation\]'"):
        numbers(seed=77).inspect()
