"""A small network learns to translate, and its translations are judged as sacreBLEU does."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from sentences import PAIRS, EncoderDecoder, Numbers
from test_token_prediction import trainer
from torch import nn

from equipoise.errors import UserError
from equipoise.tasks import Translation
from equipoise.tasks.schedules import Constant


def task(**settings: Any) -> Translation:
    torch.manual_seed(0)
    optimizer = partial(torch.optim.Adam, lr=0.01)
    return Translation(EncoderDecoder(280), optimizer, Constant(), **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Translation:
    module = task()
    trainer(tmp_path_factory.mktemp("fit"), 300, limit_val_batches=0).fit(module, Numbers())
    return module


@pytest.fixture(scope="module")
def tested(trained: Translation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("test")
    (result,) = trainer(folder, 1).test(trained, Numbers(), verbose=False)
    return dict(result)


def test_a_network_learns_to_translate(tested: dict[str, float]) -> None:
    assert tested["test/exact_match"] > 0.8
    assert tested["test/bleu"] > 90
    assert tested["test/chrf"] > 90
    assert math.log(tested["test/perplexity"]) == pytest.approx(tested["test/loss"], rel=1e-4)


def test_details_make_the_scores_comparable(trained: Translation, tested: dict[str, float]) -> None:
    details = trained.details()
    assert details["text"] == "numbers for test"
    assert (details["beam"], details["length_penalty"]) == (5, 1.0)
    assert "tok:13a" in details["signatures"]["bleu"]
    assert f"version:{sacrebleu.__version__}" in details["signatures"]["chrf"]
    samples = details["samples"]
    assert [(one["source"], one["reference"]) for one in samples] == PAIRS[:5]
    assert sum(one["translation"] == one["reference"] for one in samples) >= 4


def test_a_part_of_the_validation_is_judged_by_its_own_references(
    trained: Translation, tmp_path: Path
) -> None:
    (whole,) = trainer(tmp_path, 1).validate(trained, Numbers(), verbose=False)
    part = trainer(tmp_path, 1, limit_val_batches=1)
    (first,) = part.validate(trained, Numbers(PAIRS), verbose=False)
    assert first["val/exact_match"] > 0.9
    assert whole["val/exact_match"] * len(PAIRS) == pytest.approx(
        round(whole["val/exact_match"] * len(PAIRS)), abs=1e-3
    )
    assert first["val/exact_match"] * 16 == pytest.approx(
        round(first["val/exact_match"] * 16), abs=1e-3
    )


def test_validation_takes_the_most_likely_token_and_the_test_a_beam(tmp_path: Path) -> None:
    widths = {}
    for stage in ("val", "test"):
        module, data = task(beam=3), Numbers(PAIRS[:2])
        seen = widths[stage] = []

        def decode(tokens: Any, *rest: Any, seen: Any = seen, own: Any = module.model.decode):
            seen.append(len(tokens))
            return own(tokens, *rest)

        module.model.decode = decode
        running = trainer(tmp_path, 1)
        (running.validate if stage == "val" else running.test)(module, data, verbose=False)
    assert max(widths["val"]) == 2
    assert max(widths["test"]) == 6


def test_what_the_first_sentence_attends_to_is_drawn_in_words(
    trained: Translation, tested: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[int], ...]] = []

    def attention_maps(tokens: torch.Tensor, source: torch.Tensor, present: torch.Tensor):
        asked.append((*tokens.tolist(), *source.tolist(), *present.tolist()))
        return {"cross 1": torch.ones(1, 2, tokens.shape[1], source.shape[1])}

    monkeypatch.setattr(trained.model, "attention_maps", attention_maps, raising=False)
    (picture,) = trained.pictures(tmp_path)
    assert (tmp_path / picture.file).is_file()
    ((tokens, source, present),) = asked
    vocabulary = Numbers().vocabulary
    assert vocabulary.decode(source) == PAIRS[0][0]
    assert vocabulary.decode(tokens) == trained.details()["samples"][0]["translation"]
    assert tokens[0] == source[-1] == vocabulary.first
    assert all(present)


def test_without_a_test_nothing_is_drawn(tmp_path: Path) -> None:
    assert task().pictures(tmp_path) == []


def test_the_loss_is_smoothed_as_torch_does_and_the_plain_one_told_beside_it() -> None:
    module, (batch, *_) = task(label_smoothing=0.2), list(Numbers().train_dataloader())
    assert (batch["targets"] == -100).any()
    found = module.training_step(batch, 0)
    hidden = module.advance("train", batch).hidden
    scores, targets = module.model.decoder(hidden).flatten(0, 1), batch["targets"].flatten()
    smoothed = nn.functional.cross_entropy(scores, targets, label_smoothing=0.2)
    plain = nn.functional.cross_entropy(scores, targets)
    torch.testing.assert_close(found["loss"], smoothed)
    torch.testing.assert_close(found["nll"], plain.detach())
    torch.testing.assert_close(found["perplexity"], plain.detach().exp())


def test_padding_changes_neither_loss_nor_gradient() -> None:
    def gradient(length: int) -> list[torch.Tensor]:
        module, (batch, *_) = task(), list(Numbers().train_dataloader())
        filler = {"source": 3, "present": False, "tokens": 5, "targets": -100}
        padded = {
            name: torch.cat([batch[name], torch.full((16, length), value)], dim=1)
            for name, value in filler.items()
        }
        module.training_step(padded, 0)["loss"].backward()
        return [parameter.grad for parameter in module.parameters()]

    for one, other in zip(gradient(0), gradient(4), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_two_processes_find_the_scores_of_one(trained: Translation, tmp_path: Path) -> None:
    pairs = PAIRS[:33]  # which two cannot share without one of them twice
    file = tmp_path / "trained.ckpt"
    torch.save(trained.state_dict(), file)
    results = []
    for more in ({}, {"strategy": "ddp_spawn", "devices": 2}):
        module = task(beam=2)
        data = Numbers()
        data.pairs = pairs
        module.load_state_dict(torch.load(file, weights_only=True))
        (result,) = trainer(tmp_path, 1, **more).test(module, data, verbose=False)
        results.append(result)
    for name in ("bleu", "chrf", "exact_match"):
        assert results[0][f"test/{name}"] == pytest.approx(results[1][f"test/{name}"])


def test_a_checkpoint_is_refused_for_sentences_with_another_vocabulary(
    trained: Translation, tmp_path: Path
) -> None:
    other = task()
    other.load_state_dict(trained.state_dict())
    data = Numbers([("sechs", "six"), ("sieben", "seven")])
    said = r"another vocabulary \(280 subwords, de, en\) than .* \(\d+ subwords, de, en\): give"
    with pytest.raises(UserError, match=said):
        trainer(tmp_path, 1).test(other, data, verbose=False)


def test_a_network_without_an_encoder_is_refused() -> None:
    model = EncoderDecoder(280)
    model.encoder = None
    with pytest.raises(UserError, match=r"cannot translate: leave out encoder_layers=0"):
        Translation(model, torch.optim.SGD, Constant())


def test_it_is_told_before_training_that_sacrebleu_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(UserError, match=r"pip install 'equipoise\[translation\]'"):
        task()


def test_what_a_validation_logs_is_told_before_it() -> None:
    names = ("loss", "perplexity", "bleu", "chrf", "exact_match")
    assert task().logged("val") == {f"val/{name}" for name in names}


def test_a_batch_that_does_not_fit_in_memory_is_told_what_to_lower() -> None:
    huge = torch.zeros(1, 1, dtype=torch.long).expand(1, 2**46)
    present = torch.ones(1, 1, dtype=torch.bool).expand(1, 2**46)
    batch = {"source": huge, "present": present, "tokens": huge, "targets": huge}
    with pytest.raises(UserError, match=r"does not fit in memory: lower task.batch_tokens"):
        task().training_step(batch, 0)
