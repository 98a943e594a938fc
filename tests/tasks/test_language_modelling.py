"""Perplexity and bits per character, beside what the unigram frequencies give."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from recurrent import Recurrent
from test_token_prediction import Letters, fit, task, trainer

from equipoise.errors import UserError
from equipoise.models import KernelTransformer
from equipoise.tasks import LanguageModelling
from equipoise.tasks.schedules import Constant


def test_a_model_learns_the_alphabet_far_below_the_unigram_baseline(tmp_path: Path) -> None:
    module = fit(tmp_path, 150, limit_val_batches=0)
    (result,) = trainer(tmp_path, 1).test(module, Letters(), verbose=False)
    details = module.details()
    assert details["unigram_bits_per_character"] == pytest.approx(3.0, abs=0.01)
    assert result["test/bits_per_character"] < 0.5
    assert result["test/bits_per_character"] == pytest.approx(
        result["test/loss"] / math.log(2), rel=1e-5
    )


def test_details_tell_the_text_and_what_is_unknown(tmp_path: Path) -> None:
    module = task()
    trainer(tmp_path, 1).test(module, Letters(), verbose=False)
    details = module.details()
    assert details["text"] == "letters"
    assert details["out_of_vocabulary_rate"] == 0
    assert details["tokens"] == 201
    assert "tokens_per_character" not in details


def test_the_result_does_not_depend_on_how_the_text_is_cut(tmp_path: Path) -> None:
    results = []
    for streams, length in ((1, 200), (1, 7), (1, 1)):
        data = Letters(eval_batch_size=streams, eval_segment_length=length)
        (result,) = trainer(tmp_path, 1).test(task(), data, verbose=False)
        results.append(result["test/loss"])
    assert results[1] == pytest.approx(results[0], rel=1e-5)
    assert results[2] == pytest.approx(results[0], rel=1e-5)


@pytest.mark.parametrize(
    ("unit", "measure"),
    [("word", "perplexity"), ("subword", "perplexity"), ("character", "bits_per_character")],
)
def test_each_unit_has_its_measure(tmp_path: Path, unit: str, measure: str) -> None:
    module = LanguageModelling(Recurrent(9), torch.optim.SGD, Constant(), 9, unit)
    (result,) = trainer(tmp_path, 1).test(module, Letters(), verbose=False)
    assert set(result) == {"test/loss", f"test/{measure}"}
    assert f"unigram_{measure}" in module.details()
    assert set(module.training_terms(torch.tensor(1.0))) == {measure}


def test_subwords_are_told_in_bits_per_character_too(tmp_path: Path) -> None:
    module = LanguageModelling(Recurrent(9), torch.optim.SGD, Constant(), 9, "subword")
    (result,) = trainer(tmp_path, 1).test(module, Letters(), verbose=False)
    expected = result["test/loss"] / math.log(2)  # here a token is a character
    assert module.details()["bits_per_character"] == pytest.approx(expected, rel=1e-5)


def test_a_network_with_an_encoder_is_refused() -> None:
    model = KernelTransformer(
        vocabulary=9, size="tiny", width=8, heads=2, inner_width=8, layers=1, encoder_layers=1
    )
    with pytest.raises(UserError, match="continues no text"):
        LanguageModelling(model, torch.optim.SGD, Constant(), 9)
