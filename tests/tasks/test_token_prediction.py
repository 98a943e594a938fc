"""Memory over segments: train and validation apart, through a checkpoint, bit by bit."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from recurrent import Recurrent
from torch import Tensor, nn
from torchmetrics.text import Perplexity as PerplexityOfScores

from equipoise.data.text.module import Corpus, TextDataModule, encode
from equipoise.data.text.vocabulary import Characters
from equipoise.errors import UserError
from equipoise.tasks import LanguageModelling
from equipoise.tasks.schedules import Constant
from equipoise.tasks.token_objective import Perplexity
from equipoise.tasks.token_prediction import (
    BitsPerToken,
    Carried,
    ExactMatch,
    UnigramEntropy,
    carried_into,
    memory_length,
)

LETTERS = "abcdefgh"


class Letters(TextDataModule):
    """Some letters over and over, in four streams of 25 segments of two tokens."""

    def __init__(self, letters: str = LETTERS, **settings: Any) -> None:
        protocol: dict[str, Any] = {
            "batch_size": 4, "eval_batch_size": None, "segment_length": 2,
            "eval_segment_length": None, "memory_length": 3, "eval_memory_length": 9,
            "vocabulary": None,
        }  # fmt: skip
        super().__init__(**{**protocol, **settings})
        self.text = letters * (200 // len(letters)) + letters[0]

    def read_corpus(self) -> Corpus:
        vocabulary = Characters.of(self.text)
        text = encode(self.text, vocabulary, "letters")
        return Corpus(vocabulary, {"train": text, "val": text, "test": text})


class SaveAt(Callback):
    """Saves a checkpoint after some step."""

    def __init__(self, step: int, file: Path) -> None:
        self.step = step
        self.file = file

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.file)


def task(vocabulary: int = 9, auxiliary: bool = False) -> LanguageModelling:
    torch.manual_seed(0)
    model = Recurrent(vocabulary, auxiliary=auxiliary)
    optimizer = partial(torch.optim.Adam, lr=0.01)
    return LanguageModelling(model, optimizer, Constant(), vocabulary, "character")


def trainer(folder: Path, steps: int, *callbacks: Callback, **settings: Any) -> Trainer:
    return Trainer(**{
        "max_steps": steps, "max_epochs": -1, "accelerator": "cpu", "logger": False,
        "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "default_root_dir": folder, "callbacks": list(callbacks),
        "num_sanity_val_steps": 0, **settings,
    })  # fmt: skip


def fit(
    folder: Path, steps: int, *callbacks: Callback, data: LightningDataModule | None = None,
    ckpt_path: Path | None = None, **settings: Any,
) -> LanguageModelling:  # fmt: skip
    module = task()
    running = trainer(folder, steps, *callbacks, **settings)
    running.fit(module, data or Letters(), ckpt_path=ckpt_path, weights_only=True)
    return module


def weights(module: LanguageModelling) -> list[Tensor]:
    return [parameter.detach() for parameter in module.parameters()]


def test_memory_is_carried_over_and_dropped_where_an_epoch_begins(tmp_path: Path) -> None:
    module = fit(tmp_path, 27, limit_val_batches=0)
    carried = [streams for _, streams in module.model.seen]
    assert carried == [None, *[4] * 24, None, 4]


def test_evaluation_has_its_own_memory_of_its_own_length(tmp_path: Path) -> None:
    module = fit(tmp_path, 26, limit_val_batches=3)
    evaluated = [streams for length, streams in module.model.seen if length == 9]
    assert evaluated == [None, 4, 4]
    assert module.model.memory_length == 3


def test_validation_in_the_middle_of_an_epoch_changes_nothing(tmp_path: Path) -> None:
    alone = fit(tmp_path, 20, limit_val_batches=0)
    watched = fit(tmp_path, 20, limit_val_batches=2, val_check_interval=5)
    assert len(watched.model.seen) > len(alone.model.seen)
    for one, other in zip(weights(alone), weights(watched), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_run_repeats_the_same_bits(tmp_path: Path) -> None:
    file = tmp_path / "seven.ckpt"
    whole = fit(tmp_path, 20, SaveAt(7, file), limit_val_batches=0)
    resumed = fit(tmp_path, 20, ckpt_path=file, limit_val_batches=0)
    assert resumed.model.seen[0] == (3, 4)
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_every_process_gets_its_own_memory_back(tmp_path: Path) -> None:
    seven, whole, resumed = (tmp_path / f"{name}.ckpt" for name in ("seven", "whole", "resumed"))
    two: dict[str, Any] = {"limit_val_batches": 0, "strategy": "ddp_spawn", "devices": 2}
    fit(tmp_path, 12, SaveAt(7, seven), SaveAt(12, whole), **two)
    fit(tmp_path, 12, SaveAt(12, resumed), ckpt_path=seven, **two)
    first, second = (torch.load(file, weights_only=True) for file in (whole, resumed))
    for name, value in first["state_dict"].items():
        assert name == "_extra_state" or torch.equal(value, second["state_dict"][name])
    (memory,), (again,) = (content["carried_memory"]["memory"] for content in (first, second))
    assert torch.equal(memory, again)
    assert memory.shape == (2, 4, 16)
    assert not torch.equal(memory[0], memory[1])


def test_without_the_memory_of_the_checkpoint_the_bits_would_differ(tmp_path: Path) -> None:
    file = tmp_path / "seven.ckpt"
    whole = fit(tmp_path, 20, SaveAt(7, file), limit_val_batches=0)
    content = torch.load(file, weights_only=True)
    del content["carried_memory"]
    torch.save(content, file)
    resumed = fit(tmp_path, 20, ckpt_path=file, limit_val_batches=0)
    assert resumed.model.seen[0] == (3, None)
    pairs = zip(weights(whole), weights(resumed), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


def test_a_checkpoint_is_refused_for_a_text_with_other_symbols(tmp_path: Path) -> None:
    file = tmp_path / "seven.ckpt"
    fit(tmp_path, 20, SaveAt(7, file), limit_val_batches=0)
    with pytest.raises(UserError, match=r"another vocabulary \(9 characters\) than that"):
        fit(tmp_path, 20, data=Letters("abcdefgx"), ckpt_path=file)
    other = task()
    other.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    with pytest.raises(UserError, match="give the text that it was trained on"):
        trainer(tmp_path, 1).test(other, Letters("abcdefgx"), verbose=False)


def test_auxiliary_states_add_their_weighted_losses() -> None:
    (batch, *_) = loaded()
    plain, with_auxiliary = task(), task(auxiliary=True)
    loss = with_auxiliary.training_step(batch, 0)["loss"]
    model = with_auxiliary.model
    extra = with_auxiliary.mean_loss(model.embedding(batch["tokens"]), batch["targets"])
    assert torch.allclose(loss, plain.training_step(batch, 0)["loss"] + 0.5 * extra)


def test_the_loss_is_the_mean_over_the_targets_that_count() -> None:
    module, (batch, *_) = task(), loaded()
    batch["targets"][1:] = -100
    first = {
        **{name: rows[:1] for name, rows in batch.items() if rows.ndim},
        "start": batch["start"],
    }
    alone = module.training_step(first, 0)["loss"]
    module.carried.clear()
    assert torch.allclose(module.training_step(batch, 0)["loss"], alone)


def test_a_segment_that_does_not_fit_in_memory_is_told_what_to_lower() -> None:
    module = task()
    batch = {
        "tokens": torch.zeros(1, 1, dtype=torch.long).expand(1, 2**46),
        "targets": torch.zeros(1, 1, dtype=torch.long),
        "start": torch.tensor(True),
    }
    with pytest.raises(UserError, match=r"does not fit in memory: lower task.segment_length"):
        module.training_step(batch, 0)


def loaded() -> list[dict[str, Tensor]]:
    data = Letters()
    data.setup()
    return list(data.train_dataloader())


KEPT = {"train": Carried(2, (torch.ones(2, 3),))}


def batch(streams: int = 2, start: bool = False) -> dict[str, torch.Tensor]:
    return {"tokens": torch.zeros(streams, 4, dtype=torch.long), "start": torch.tensor(start)}


def test_a_batch_continues_the_memory_of_its_stage_and_streams() -> None:
    assert carried_into(KEPT, "train", batch()) is KEPT["train"].memory
    assert carried_into(KEPT, "val", batch()) is None
    assert carried_into(KEPT, "train", batch(start=True)) is None
    assert carried_into(KEPT, "train", batch(streams=1)) is None


def test_the_length_of_memory_is_put_back_whatever_happens() -> None:
    model = Recurrent(3)
    with pytest.raises(RuntimeError, match="with 7"):
        fail_with_memory(model, 7)
    assert model.memory_length == 3
    with memory_length(model, None):
        assert model.memory_length == 3


def fail_with_memory(model: Recurrent, length: int) -> None:
    with memory_length(model, length):
        raise RuntimeError(f"with {model.memory_length}")


def test_a_model_without_a_length_of_memory_keeps_what_it_has() -> None:
    model = nn.Linear(1, 1)
    with memory_length(model, 7):
        assert not hasattr(model, "memory_length")


def test_perplexity_and_bits_agree_with_those_of_the_scores() -> None:
    scores, targets = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    targets[0, 2] = -100
    losses = torch.nn.functional.cross_entropy(scores.mT, targets, reduction="none")
    counted = (targets != -100).float()
    perplexity, bits, reference = Perplexity(), BitsPerToken(), PerplexityOfScores(-100)
    for half in (slice(0, 1), slice(1, 3)):  # of different sizes
        perplexity.update(losses[half], counted[half])
        bits.update(losses[half], counted[half])
        reference.update(scores[half], targets[half])
    assert perplexity.compute() == pytest.approx(float(reference.compute()), rel=1e-5)
    assert 2 ** bits.compute() == pytest.approx(float(perplexity.compute()), rel=1e-5)


def test_unigram_entropy_is_that_of_the_targets_seen() -> None:
    entropy = UnigramEntropy(5)
    entropy.update(torch.tensor([[0, 0, 1], [2, -100, -100]]))
    entropy.update(torch.tensor([[0, 3, -100]]))
    shares = (3 / 6, 1 / 6, 1 / 6, 1 / 6)
    assert float(entropy.compute()) == pytest.approx(-sum(p * math.log(p) for p in shares))


def test_a_sequence_matches_when_all_its_tokens_do() -> None:
    match = ExactMatch()
    match.update(torch.tensor([[True, True], [True, False]]))
    match.update(torch.tensor([[True, True], [True, True]]))
    assert match.compute() == 0.75
