"""The report of a text task shows what its model offers of its attention, token by token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from equipoise.models import KernelTransformer
from equipoise.running.api import run
from equipoise.tasks import LanguageModelling
from tests.tasks.test_text_runs import TEXT, write

QUICK = (
    "model=kernel_transformer", "trainer.max_steps=2", "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1", "model.width=16", "model.inner_width=16", "model.heads=2",
    "model.layers=1", "logger=none",
)  # fmt: skip


def pictures(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("report/*.png"))


def test_a_language_model_shows_its_attention_and_its_kernels(tmp_path: Path) -> None:
    path = write(tmp_path / "text", TEXT)
    words = ["task=text_folder", f"task.path={path}", "task.batch_size=4", "task.segment_length=16"]
    run(*words, *QUICK, "model.attention.learned_width=true", f"run_dir={tmp_path / 'run'}")
    assert pictures(tmp_path / "run") == [
        "attention_decoder", "kernel_widths", "positional_kernels",
    ]  # fmt: skip


@pytest.mark.parametrize("positions", ["none", "symmetric_product"])
def test_a_translation_shows_its_attention_to_the_source(positions: str, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    sizes = ["task.train_size=40", "task.val_size=4", "task.test_size=4", "task.subwords=300"]
    run("task=number_words", *sizes, *QUICK, f"model.attention.positions={positions}",
        "task.encoder_layers=1", f"run_dir={tmp_path / 'run'}")  # fmt: skip
    kernels = [] if positions == "none" else ["positional_kernels"]
    maps = ["attention_cross", "attention_decoder", "attention_encoder"]
    assert pictures(tmp_path / "run") == [*maps, *kernels]


@pytest.fixture
def objective() -> LanguageModelling:
    model = KernelTransformer(vocabulary=5, size="tiny", width=8, heads=1, inner_width=8, layers=1)
    return LanguageModelling(model, lambda p: torch.optim.SGD(p), lambda o, n: None, vocabulary=5)  # type: ignore[arg-type, return-value]


class Looking(torch.nn.Module):
    """Offers maps and kernels, and notes how it was asked."""

    asked: tuple[object, ...]

    def attention_maps(
        self, tokens: Tensor, source: Tensor | None = None, present: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Maps of one head."""
        self.asked = (self.training, tokens.shape, None if present is None else present.tolist())
        maps = {"decoder 1": torch.rand(1, 1, 3, 3)}
        return maps if source is None else maps | {"cross 1": torch.rand(1, 1, 3, 2)}

    def kernel_widths(self) -> dict[str, Tensor]:
        """Widths of one head."""
        return {"decoder 1": torch.ones(1)}


def test_a_model_is_asked_in_evaluation_for_what_it_offers(
    objective: LanguageModelling, tmp_path: Path
) -> None:
    tokens, source = torch.arange(3), torch.arange(2)
    objective.model = torch.nn.Linear(1, 1)
    assert objective.attention_pictures(tmp_path, tokens, source) == []
    objective.model = model = Looking().train()
    drawn = objective.attention_pictures(tmp_path, tokens, source)
    files = [picture.file for picture in drawn]
    assert files == ["attention_decoder.png", "attention_cross.png", "kernel_widths.png"]
    assert (model.asked, model.training) == ((False, (1, 3), [[True, True]]), True)
    objective.attention_pictures(tmp_path, tokens)
    assert model.asked == (False, (1, 3), None)


def test_without_a_test_or_a_vocabulary(objective: LanguageModelling, tmp_path: Path) -> None:
    assert objective.pictures(tmp_path) == []
    assert objective.words(torch.tensor([3, 1])) == ["3", "1"]
    objective.vocabulary_state = {"unit": "character", "symbols": ["a", "b", "\n", "<unk>"]}
    assert objective.words(torch.tensor([1, 2])) == ["b", "\n"]
