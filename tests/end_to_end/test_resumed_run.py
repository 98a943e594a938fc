"""What a run that is resumed, or that ends early, reports and leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from equipoise.config.compose import compose
from equipoise.errors import RunFailed, RunInterrupted, UserError
from equipoise.running import run as training
from equipoise.running.api import _prepare, evaluate, run
from equipoise.running.build import build_run
from equipoise.running.loggers import assign_wandb_run
from tests.end_to_end.resuming import TASKS, checkpoint, curve, resumed

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
]
WORDS = ("task=digits", "seed=7", *TASKS["digits"], "callbacks.report=null", "~callbacks.progress",
         "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=2")  # fmt: skip
LONGER = "trainer.max_epochs=2"


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch, whose best score nothing can reach again."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run(*WORDS, "trainer.max_epochs=1", f"run_dir={folder}")
    path = folder / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    (key,) = (name for name in content["callbacks"] if name.startswith("BestCheckpoint"))
    state = content["callbacks"][key]
    for score in (state["best_model_score"], state["kth_value"], *state["best_k_models"].values()):
        score.fill_(2.0)
    torch.save(content, path)
    return folder


@pytest.fixture
def a_run(trained: Path, tmp_path: Path) -> Path:
    """The same run in a folder of another name."""
    return Path(shutil.copytree(trained, tmp_path / "moved"))


def with_callback(callback: Callback, directory: Path, *words: str) -> None:
    composition = compose([*WORDS, *words])
    _prepare(composition, directory)
    built = build_run(composition, directory)
    built.trainer.callbacks.insert(0, callback)  # type: ignore[attr-defined]
    training.fit_and_test(built, None)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["moved", "resumed elsewhere"])
def test_the_best_score_is_kept_in_another_folder(
    a_run: Path, tmp_path: Path, elsewhere: bool
) -> None:
    folder = tmp_path / "new" if elsewhere else a_run
    best = checkpoint(a_run, "best.ckpt")
    last = f"ckpt_path={a_run / 'checkpoints' / 'last.ckpt'}"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run(last, f"run_dir={folder}", LONGER)
    assert [str(w.message) for w in said if "dirpath" in str(w.message)] == []
    assert checkpoint(folder)["global_step"] == 10
    assert checkpoint(folder, "best.ckpt")["global_step"] == best["global_step"] == 5
    assert metrics_of(folder)["details"]["tested_checkpoint"] == "best.ckpt"


def test_a_best_score_without_its_file_counts_no_more(a_run: Path) -> None:
    (a_run / "checkpoints" / "best.ckpt").unlink()
    content = checkpoint(a_run)
    for state in content["callbacks"].values():
        if "best_k_models" in state:
            state["best_k_models"] = {f"/lost/{Path(p).name}": s for p, s in
                                      state["best_k_models"].items()}  # fmt: skip
    torch.save(content, a_run / "checkpoints" / "last.ckpt")
    with pytest.warns(UserWarning, match="best checkpoint of the resumed run is no longer in"):
        resumed(a_run, LONGER)
    assert checkpoint(a_run, "best.ckpt")["global_step"] == 10


def test_nothing_left_to_train_is_said_only_where_it_is_so(
    a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        resumed(a_run, LONGER)
    assert not [w for w in said if "nothing was left" in str(w.message)]
    assert "nothing is left to train" not in "".join(capsys.readouterr())
    metrics = resumed(a_run)
    assert "nothing is left to train" in "".join(capsys.readouterr())
    assert (metrics["epochs"], metrics["steps"]) == (2, 10)
    assert set(metrics["val"]) == {"loss", "accuracy"}


@pytest.mark.parametrize("left", ["nothing", "a part"])
def test_a_run_with_nothing_left_to_train_has_its_last_checkpoint(a_run: Path, left: str) -> None:
    kept = a_run / "checkpoints"
    whole = (kept / "last.ckpt").read_bytes()
    (kept / "last.ckpt").rename(kept / "best.ckpt")
    if left == "a part":
        (kept / "last.ckpt").write_bytes(whole[:100])
    with pytest.warns(UserWarning, match="nothing was left to train after step 5"):
        resumed(a_run, "seed=7", name="best.ckpt")
    assert (kept / "last.ckpt").read_bytes() == whole


def test_rows_after_the_checkpoint_are_written_once(a_run: Path) -> None:
    before = curve(a_run)
    lines = (a_run / "metrics.csv").read_text().splitlines()
    crashed = [line.replace("4", "9") for line in lines[1:3]]
    (a_run / "metrics.csv").write_text("\n".join([*lines, *crashed]) + "\n")
    resumed(a_run, LONGER)
    rows = curve(a_run)
    kept = [row for row in before if not row["test/loss"]]
    assert rows[: len(kept)] == kept
    trained = [int(row["step"]) for row in rows if row["train/loss"]]
    assert trained == sorted(set(trained)) == [2, 4, 5, 6, 8, 10]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.max_epochs=0"], "trainer.max_epochs=0 is less than the 1 epochs"),
        (["trainer.max_steps=3"], "trainer.max_steps=3 is less than the 5 steps"),
        (["model.final_channels=8"], "does not fit the network"),
    ],
)
def test_what_cannot_be_gone_on_with_is_one_sentence(
    a_run: Path, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        resumed(a_run, *words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [["equilibrium.jitter=2"], ["equilibrium.random_start=0.5"], ["regularizer=jacobian"]],
    ids=lambda words: words[0],
)
def test_what_draws_random_numbers_may_be_added_and_taken_away(
    a_run: Path, words: list[str]
) -> None:
    off = {"equilibrium.jitter=2": "equilibrium.jitter=0",
           "equilibrium.random_start=0.5": "equilibrium.random_start=0.0",
           "regularizer=jacobian": "regularizer=none"}[words[0]]  # fmt: skip
    assert resumed(a_run, *words, "trainer.max_steps=6")["steps"] == 6
    assert resumed(a_run, off, "trainer.max_steps=7")["steps"] == 7


def test_checkpoints_of_the_weights_alone_are_evaluated_but_not_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    alone = [f"callbacks.checkpoint_{n}.save_weights_only=true" for n in ("best", "last")]
    metrics = run(*WORDS, *alone, "trainer.max_epochs=1", f"run_dir={folder}")
    path = f"ckpt_path={folder / 'checkpoints' / 'best.ckpt'}"
    again = evaluate(path, f"run_dir={tmp_path / 'again'}")
    assert again["test"] == metrics["test"]
    assert (again["epochs"], again["steps"]) == (1, 5)
    assert "optimizer_states" not in checkpoint(folder)
    with pytest.raises(UserError, match=r"holds only the weights .* but not resumed"):
        run(path, f"run_dir={tmp_path / 'more'}")


class Raises(Callback):
    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 7:
            raise RuntimeError("the cat has pulled the plug")


def test_a_failed_run_tells_how_far_it_came(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the cat"):
        with_callback(Raises(), tmp_path / "run", LONGER)
    metrics = metrics_of(tmp_path / "run")
    assert (metrics["status"], metrics["epochs"], metrics["steps"]) == ("failed", 1, 7)


@pytest.mark.parametrize(
    ("word", "ended_by", "epochs"),
    [
        ("trainer.max_steps=3", "steps", 0),
        ("trainer.max_epochs=1", "epochs", 1),
        ("trainer.max_time={seconds: 1}", "max_time", None),
    ],
)
def test_what_ended_a_run_is_told(
    tmp_path: Path, word: str, ended_by: str, epochs: int | None
) -> None:
    metrics = run(*WORDS, "trainer.max_epochs=1000", *[word], f"run_dir={tmp_path / 'run'}")
    assert metrics["details"]["ended_by"] == ended_by
    assert metrics["status"] == "completed"
    if epochs is not None:
        assert metrics["epochs"] == epochs


class SignalIn(Callback):
    """Sends a signal when a hook is called, and a second one in a hook after it."""

    def __init__(self, number: signal.Signals, *hooks: str) -> None:
        for hook in hooks:
            setattr(self, hook, lambda *_, **__: os.kill(os.getpid(), number))


def in_the_foreground(test: Callable[[], None]) -> None:
    """A test run in a shell's background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        test()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("hooks", "said", "steps"),
    [
        (["setup"], "after step 0; nothing was saved", 0),
        (["on_fit_start"], "after step 0; nothing was saved", 0),
        (
            ["on_train_batch_start", "on_before_zero_grad"],
            "immediately, after step 0; nothing was",
            0,
        ),
        (
            ["on_test_batch_start"],
            r"during the test, after all 1 training steps .*best|last\.ckpt",
            1,
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_signal_ends_every_stage_with_a_sentence(
    tmp_path: Path, number: signal.Signals, hooks: list[str], said: str, steps: int
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def test() -> None:
        with pytest.raises(RunInterrupted, match=said) as stop:
            with_callback(SignalIn(number, *hooks), tmp_path / "run", "trainer.max_steps=1")
        assert stop.value.status == 128 + number

    in_the_foreground(test)
    metrics = metrics_of(tmp_path / "run")
    assert (metrics["status"], metrics["steps"]) == ("interrupted", steps)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_checkpoints_that_cannot_be_saved_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunFailed, match=r"best\.ckpt could not be saved: "):
        run(*WORDS, "trainer.max_epochs=1", f"run_dir={tmp_path / 'run'}",
            f"callbacks.checkpoint_best.dirpath={tmp_path / 'file' / 'here'}")  # fmt: skip
    metrics = metrics_of(tmp_path / "run")
    assert (metrics["status"], metrics["steps"]) == ("failed", 5)


def test_a_wandb_run_is_gone_on_with_in_its_own_folder_alone() -> None:
    config = compose(["logger=wandb"]).config
    assign_wandb_run(config, [], same_run=False)
    first = config.logger.wandb.id
    assert len(first) == 8
    assign_wandb_run(config, [], same_run=True)
    assert config.logger.wandb.id == first
    assign_wandb_run(config, [], same_run=False)
    assert config.logger.wandb.id != first
    config.logger.wandb.id = "mine"
    assign_wandb_run(config, ["logger.wandb.id=mine"], same_run=False)
    assert config.logger.wandb.id == "mine"


def test_an_interrupted_evaluation_keeps_what_was_reached(
    a_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"ckpt_path={a_run / 'checkpoints' / 'best.ckpt'}"
    build = build_run

    def with_signal(*args: Any) -> Any:
        built = build(*args)
        built.trainer.callbacks.insert(0, SignalIn(signal.SIGINT, "on_test_batch_start"))
        return built

    monkeypatch.setattr("equipoise.running.build.build_run", with_signal)

    def test() -> None:
        with pytest.raises(RunInterrupted, match="Interrupted; what was measured is in"):
            evaluate(path, f"run_dir={tmp_path / 'evaluated'}")

    in_the_foreground(test)
    assert metrics_of(tmp_path / "evaluated")["status"] == "interrupted"
