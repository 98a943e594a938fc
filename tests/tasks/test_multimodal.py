"""The losses of sentiment and emotions, their metrics of a whole split, and apart clipping."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from equipoise.errors import UserError
from equipoise.tasks import EmotionRecognition, SentimentRegression, multimodal_scores
from equipoise.tasks.multimodal_scores import emotion_scores, sentiment_scores
from equipoise.tasks.schedules import Constant

Batch = dict[str, Tensor]
RATE, CLIP = 0.1, 0.01


class Output(NamedTuple):
    outputs: Tensor
    auxiliary: Tensor | None = None


class Fusion(nn.Module):
    """The mean of each stream, read by a linear layer; with a part that is trained by itself."""

    def __init__(self, outputs: int = 1, *, aligned: bool = False) -> None:
        super().__init__()
        self.read = nn.Linear(5, outputs)
        self.alignment = nn.Linear(2, 1) if aligned else None

    def forward(self, batch: Batch) -> Output:
        means = [batch[name].mean(dim=1) for name in ("language", "audio")]
        if self.alignment is None:
            return Output(self.read(torch.cat(means, dim=1)))
        return Output(self.read(torch.cat(means, dim=1)), self.alignment(means[1]).square().sum())


class Attending(Fusion):
    def attention_maps(self, batch: Batch) -> dict[str, Tensor]:
        sizes = (len(batch["index"]), 2, batch["language"].shape[1], batch["audio"].shape[1])
        assert not self.training
        return {f"language from audio {layer}": torch.rand(sizes) for layer in (1, 2)}


class Streams(LightningDataModule):
    """Batches for every stage, and something to know about them."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__()
        self.loader = DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]

    def train_dataloader(self) -> Any:
        return self.loader

    def val_dataloader(self) -> Any:
        return self.loader

    def test_dataloader(self) -> Any:
        return self.loader

    def facts(self, split: str) -> dict[str, Any]:
        return {"split": split}


def batch_of(rows: Sequence[int], label: Tensor) -> Batch:
    """The same streams for the same rows."""
    index = torch.tensor(rows)
    random = torch.Generator().manual_seed(0)
    language, audio = (torch.randn(20, *s, generator=random) for s in ((4, 3), (7, 2)))
    return {"language": language[index], "audio": audio[index], "label": label[index],
            "index": index}  # fmt: skip


@pytest.fixture
def sentiment() -> Tensor:
    return torch.randn(20).mul(2).clamp(-3, 3)


@pytest.fixture
def emotions() -> Tensor:
    return torch.randint(0, 2, (20, 4))


def task_of(kind: type[Any], model: nn.Module, **settings: Any) -> Any:
    return kind(model, partial(torch.optim.SGD, lr=RATE), Constant(), **settings)


def trainer_in(folder: Path, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, max_steps=1, num_sanity_val_steps=0,
        **settings,
    )  # fmt: skip


def test_sentiment_is_trained_by_its_absolute_error(sentiment: Tensor) -> None:
    batch, model = batch_of(range(6), sentiment), Fusion()
    found = task_of(SentimentRegression, model).training_step(batch, 0)
    expected = (model(batch).outputs[:, 0] - batch["label"]).abs().mean()
    assert set(found) == {"loss"}
    torch.testing.assert_close(found["loss"], expected)


def test_what_an_alignment_adds_is_part_of_the_loss_and_told(sentiment: Tensor) -> None:
    batch, model = batch_of(range(6), sentiment), Fusion(aligned=True)
    found = task_of(SentimentRegression, model).training_step(batch, 0)
    outputs, added = model(batch)
    torch.testing.assert_close(found["auxiliary_loss"], added.detach())
    expected = functional.l1_loss(outputs[:, 0], batch["label"]) + added
    torch.testing.assert_close(found["loss"], expected)


def test_emotions_are_trained_by_the_cross_entropy_of_all_of_them(emotions: Tensor) -> None:
    batch, model = batch_of(range(6), emotions), Fusion(8)
    found = task_of(EmotionRecognition, model).training_step(batch, 0)["loss"]
    scores = model(batch).outputs.view(6, 4, 2).log_softmax(dim=-1)
    chosen = scores.gather(-1, batch["label"].unsqueeze(-1))
    torch.testing.assert_close(found, -chosen.mean())


def test_outputs_are_never_compared_with_the_labels_of_other_samples(sentiment: Tensor) -> None:
    with pytest.raises(RuntimeError, match="is invalid for input of size 36"):
        task_of(SentimentRegression, Fusion(6)).training_step(batch_of(range(6), sentiment), 0)


@pytest.mark.parametrize(
    ("outputs", "names", "message"),
    [
        (6, ("neutral", "happy", "sad", "angry"), "task.outputs: there are 6, .* need 8"),
        (6, ("neutral", "happy", "sad"), "emotions in the labels: there are 4, .* need 3"),
    ],
)
def test_emotions_that_do_not_fit_are_refused(
    emotions: Tensor, outputs: int, names: tuple[str, ...], message: str
) -> None:
    task = task_of(EmotionRecognition, Fusion(outputs), emotions=names)
    with pytest.raises(UserError, match=message):
        task.training_step(batch_of(range(6), emotions), 0)


@pytest.mark.parametrize("stage", ["val", "test"])
def test_sentiment_is_judged_on_the_whole_split_each_sample_once(
    stage: str, sentiment: Tensor, tmp_path: Path
) -> None:
    model = Fusion()
    task, trainer = task_of(SentimentRegression, model), trainer_in(tmp_path)
    data = Streams([batch_of(rows, sentiment) for rows in (range(12), range(8, 20), (19, 0))])
    {"val": trainer.validate, "test": trainer.test}[stage](task, data, verbose=False)
    whole = batch_of(range(20), sentiment)
    outputs = model(whole).outputs.detach().numpy()[:, 0]
    expected = sentiment_scores(outputs, sentiment.numpy())
    expected["loss"] = expected["mae"]
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert found == pytest.approx({f"{stage}/{n}": v for n, v in expected.items()}, abs=1e-6)
    assert set(found) == task.logged(stage)


def test_emotions_are_judged_on_the_whole_split(emotions: Tensor, tmp_path: Path) -> None:
    model = Fusion(8)
    task, trainer = task_of(EmotionRecognition, model), trainer_in(tmp_path)
    data = Streams([batch_of(rows, emotions) for rows in (range(12), range(8, 20))])
    trainer.test(task, data, verbose=False)
    logits = model(batch_of(range(20), emotions)).outputs.detach().view(20, 4, 2)
    expected = emotion_scores(logits.argmax(dim=-1).numpy(), emotions.numpy(), task.emotions)
    expected["loss"] = float(functional.cross_entropy(logits.flatten(0, 1), emotions.flatten()))
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert found == pytest.approx({f"test/{n}": v for n, v in expected.items()}, abs=1e-6)
    assert set(found) == task.logged("test")


def test_what_two_processes_have_predicted_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    other = (np.array([3, 0, 2]), np.array([[3.0], [0.0], [2.0]]), np.array([3.5, 0.5, 2.5]))
    monkeypatch.setattr(multimodal_scores, "from_all_processes", lambda mine: [mine, other])
    mine = (torch.tensor([1, 3]), torch.tensor([[1.0], [3.0]]), torch.tensor([1.5, 3.5]))
    outputs, label = multimodal_scores.split_of_all_processes([mine])
    assert outputs.tolist() == [[0], [1], [2], [3]]
    assert label.tolist() == [0.5, 1.5, 2.5, 3.5]


def changes(task: Any, trainer: Trainer, data: Streams) -> tuple[Tensor, Tensor]:
    """How far one step moves the alignment, and all other weights, in units of the rate."""
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    trainer.fit(task, data)
    moved = {n: (v - before[n]).flatten() / RATE for n, v in task.model.state_dict().items()}
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, change in moved.items():
        parts[not name.startswith("alignment")].append(change)
    return torch.cat(parts[0]), torch.cat(parts[1])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_alignment_is_clipped_apart_from_the_rest(
    precision: Any, accumulate: int, sentiment: Tensor, tmp_path: Path
) -> None:
    data = Streams([batch_of(range(6), sentiment), batch_of(range(6, 12), sentiment)])
    trainer = trainer_in(tmp_path, gradient_clip_val=CLIP, accumulate_grad_batches=accumulate,
                         precision=precision)  # fmt: skip
    task = task_of(SentimentRegression, Fusion(aligned=True))
    for change in changes(task, trainer, data):
        assert change.norm() == pytest.approx(CLIP, rel=1e-3)


def test_a_norm_within_the_limit_is_left_alone(sentiment: Tensor, tmp_path: Path) -> None:
    data, model = Streams([batch_of(range(6), sentiment)]), Fusion(aligned=True)
    task = task_of(SentimentRegression, model)
    task.training_step(batch_of(range(6), sentiment), 0)["loss"].backward()
    gradient = torch.cat([p.grad.flatten().clone() for p in model.alignment.parameters()])
    trainer = trainer_in(tmp_path, gradient_clip_val=1.01 * float(gradient.norm()))
    aligned, others = changes(task, trainer, data)
    torch.testing.assert_close(aligned, -gradient, rtol=1e-4, atol=1e-6)
    assert others.norm() > 0


def test_values_are_clipped_alike_and_without_alignment_all_norms_together(
    sentiment: Tensor, tmp_path: Path
) -> None:
    data = Streams([batch_of(range(6), sentiment)])
    by_value = {"gradient_clip_val": CLIP, "gradient_clip_algorithm": "value"}
    task = task_of(SentimentRegression, Fusion(aligned=True))
    for change in changes(task, trainer_in(tmp_path, **by_value), data):
        assert change.abs().max() == pytest.approx(CLIP, rel=1e-3)
    task = task_of(SentimentRegression, Fusion())
    before = torch.nn.utils.parameters_to_vector(task.parameters()).detach()
    trainer_in(tmp_path, gradient_clip_val=CLIP).fit(task, data)
    after = torch.nn.utils.parameters_to_vector(task.parameters()).detach()
    assert (after - before).norm() == pytest.approx(RATE * CLIP, rel=1e-3)


def test_a_tested_sentiment_is_described_and_drawn(sentiment: Tensor, tmp_path: Path) -> None:
    task = task_of(SentimentRegression, Attending(), samples=2)
    assert task.details() == {}
    assert task.pictures(tmp_path) == []
    data = Streams([batch_of(range(6), sentiment), batch_of(range(6, 12), sentiment)])
    trainer_in(tmp_path).test(task, data, verbose=False)
    assert task.details() == {"split": "test", "trained_on": "mean absolute error"}
    names = [picture.file for picture in task.train().pictures(tmp_path)]
    assert names == [
        "sentiment.png", "crossmodal_attention_1.png", "crossmodal_attention_2.png",
    ]  # fmt: skip
    assert all((tmp_path / name).is_file() for name in names)
    assert task.model.training


def test_tested_emotions_are_drawn_and_a_model_without_maps_has_none(
    emotions: Tensor, tmp_path: Path
) -> None:
    task = task_of(EmotionRecognition, Fusion(8))
    trainer_in(tmp_path).test(task, Streams([batch_of(range(6), emotions)]), verbose=False)
    assert [picture.file for picture in task.pictures(tmp_path)] == ["emotions.png"]
    assert (tmp_path / "emotions.png").is_file()
