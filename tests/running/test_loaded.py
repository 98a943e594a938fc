"""A trained model in somebody else's program: what it tells, reads and finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import equipoise
from equipoise.errors import UserError
from equipoise.running.loaded import Loaded

WORDS = (
    "task=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "callbacks.progress=null",
    "callbacks.report=null", "logger=none", "solver.max_steps=8",
)  # fmt: skip
SHADES = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loaded") / "run"
    equipoise.run(*WORDS, f"run_dir={folder}")
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> Loaded:
    return equipoise.load(run)


def changed(run: Path, target: Path, change: Callable[[Any], object]) -> Path:
    """The run's checkpoint with another content."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    change(content)
    torch.save(content, target)
    return target


def test_a_loaded_model_tells_what_it_is(run: Path, model: Loaded) -> None:
    assert not model.training
    assert not model.network.training
    assert model.config["task"]["classes"] == 10
    assert model.choices["task"] == "digits"
    assert model.class_names == list("0123456789")
    assert model.path == run / "checkpoints" / "best.ckpt"
    image = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(image), model.network(image))


def test_the_weights_are_those_of_the_checkpoint(run: Path, model: Loaded) -> None:
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    for name, weight in model.network.named_parameters():
        assert torch.equal(weight, state[f"model.{name}"])


def test_names_are_kept_in_the_checkpoint_and_otherwise_those_of_the_data(
    run: Path, tmp_path: Path
) -> None:
    named = changed(run, tmp_path / "named.ckpt", lambda c: c.update(class_names=["nought"]))
    assert equipoise.load(named).class_names == ["nought", *"123456789"]
    old = changed(run, tmp_path / "old.ckpt", lambda c: c.pop("class_names"))
    assert equipoise.load(old).class_names == list("0123456789")

    def elsewhere(content: Any) -> None:
        content.pop("class_names")
        content["config"]["task"]["_target_"] = "equipoise.data.Stl10"
        content["config"]["task"]["path"] = str(tmp_path / "nowhere")

    lost = equipoise.load(changed(run, tmp_path / "lost.ckpt", elsewhere))
    assert lost.class_names == list("0123456789")


@pytest.mark.parametrize(
    "picture",
    [
        SHADES,
        np.repeat(SHADES[..., None], 3, axis=2),
        np.repeat(SHADES[..., None], 4, axis=2),
        torch.from_numpy(SHADES),
        torch.from_numpy(SHADES)[None],
        Image.fromarray(SHADES),
        Image.fromarray(SHADES).convert("RGB"),
        Image.fromarray(SHADES).convert("RGBA"),
    ],
)
def test_a_picture_is_the_same_in_every_form(model: Loaded, picture: Any) -> None:
    wanted = model.preprocess(SHADES)
    assert wanted.shape == (1, 8, 8)
    assert torch.equal(model.preprocess(picture), wanted)
    alone = model.predict(picture)
    assert alone.probabilities is not None
    assert alone.probabilities.shape == (1, 10)
    assert torch.equal(alone.probabilities, model.predict([SHADES]).probabilities)


def test_stacks_lists_and_folders_hold_several(model: Loaded, tmp_path: Path) -> None:
    other = SHADES.T.copy()
    (tmp_path / "below").mkdir()
    Image.fromarray(SHADES).save(tmp_path / "a.png")
    Image.fromarray(other).save(tmp_path / "below" / "b.png")
    wanted = model.predict([SHADES, other])
    assert wanted.residual is not None
    assert wanted.converged is not None
    assert wanted.residual.shape == wanted.converged.shape == (2,)
    for several in (
        np.stack([SHADES, other]),
        torch.from_numpy(np.stack([SHADES, other]))[:, None],
        [tmp_path / "a.png", str(tmp_path / "below" / "b.png")],
        tmp_path,
    ):
        found = model.predict(several)
        assert torch.equal(found.probabilities, wanted.probabilities)  # type: ignore[arg-type]
        assert found.names == wanted.names


@pytest.mark.parametrize("count", [1, 3, 4])
def test_an_array_that_may_be_one_picture_or_several_is_refused(model: Loaded, count: int) -> None:
    stack = np.stack([SHADES] * count)
    with pytest.raises(UserError, match=f"may be one picture or {count} in grey"):
        model.predict(stack)
    assert model.predict(stack[:, None]).labels.shape == (count,)  # type: ignore[union-attr]
    assert torch.equal(model.preprocess(np.stack([SHADES] * 3)), model.preprocess(SHADES))


def test_pictures_of_any_size_are_brought_to_that_of_the_data(model: Loaded) -> None:
    large = np.kron(SHADES, np.ones((20, 20), np.uint8))
    assert model.preprocess(large).shape == (1, 8, 8)
    torch.testing.assert_close(
        model.preprocess(large[:, 0:160]), model.preprocess(SHADES), atol=0.2, rtol=0
    )


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        (SHADES / 2, "a picture of float64 has an unknown white level: give paths, PIL images"),
        (np.zeros((2, 8, 8, 5), np.uint8), "a picture cannot have the shape (8, 8, 5)"),
        (np.zeros((0, 8), np.uint8), "a picture cannot have the shape (0, 8)"),
        (3, "a picture cannot be a int"),
        ([], "there are no pictures in []"),
        ("nowhere.png", "there is no picture nowhere.png: give paths, PIL images"),
    ],
)
def test_what_is_no_picture_is_refused(model: Loaded, pictures: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        model.predict(pictures)
    assert said in str(caught.value)


def test_a_batch_has_at_least_one(model: Loaded) -> None:
    with pytest.raises(UserError, match="batch_size=0 must be 1 or more"):
        model.predict(SHADES, batch_size=0)


def test_the_layers_are_in_the_phase_of_the_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    phases = "[{start: 0, gradient: unrolled}]"
    equipoise.run(*WORDS, f"callbacks.gradient_schedule.phases={phases}", f"run_dir={folder}")
    model = equipoise.load(folder)
    assert type(model.network.equilibrium.gradient).__name__ == "Unrolled"
    assert model.config["gradient"]["_target_"].rpartition(".")[2] != "Unrolled"


def test_what_cannot_be_loaded_is_refused(run: Path, tmp_path: Path) -> None:
    def foreign(content: Any) -> None:
        content["config"]["model"]["_target_"] = "my_package.Network"

    with pytest.raises(UserError, match=r"trust=\[my_package\]"):
        equipoise.load(changed(run, tmp_path / "foreign.ckpt", foreign))
    with pytest.raises(UserError, match="there is no device abacus"):
        equipoise.load(run, device="abacus")
    with pytest.raises(UserError, match="there is no checkpoint at"):
        equipoise.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="give the path of a run, not a NoneType"):
        equipoise.load(None)  # type: ignore[arg-type]
