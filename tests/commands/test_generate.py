"""`generate` from a real, briefly trained checkpoint; and what it cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from equipoise import commands
from equipoise.commands.generate import context_of, parse, summary
from equipoise.errors import UserError
from equipoise.running.api import run

TEXT = "the cat sat on the mat. the dog sat on the log.\n" * 60


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    (folder / "book.txt").write_text(TEXT)
    run(
        "task=text_folder", f"task.path={folder / 'book.txt'}", "task.batch_size=4",
        "task.segment_length=16", "task.memory_length=16", "model.width=16", "model.inner_width=32",
        "model.heads=2", "trainer.max_epochs=1", "optimizer.lr=0.02", "solver.max_steps=8",
        f"run_dir={folder / 'run'}", "logger=none",
    )  # fmt: skip
    return folder / "run" / "checkpoints" / "last.ckpt"


def generate(*arguments: str) -> int:
    return commands.run(["generate", *arguments])


def test_the_prompt_is_continued_as_it_was_typed(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "the {cat}=[1,2], 'sat'\n"
    assert generate(f"ckpt_path={checkpoint}", f"prompt={prompt}", "length=30") == 0
    written = capsys.readouterr()
    known = "".join(c if c in TEXT else "<unk>" for c in prompt)
    assert written.out.startswith(known)
    assert len(written.out) >= len(known) + 30
    assert "30 tokens" in written.err
    assert "evaluations of f each" in written.err
    assert "has never seen 11 of the 23 characters" in written.err


def test_greedy_text_and_seeded_draws_are_the_same_again(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def text(*arguments: str) -> str:
        generate(f"ckpt_path={checkpoint}", "length=40", *arguments)
        return capsys.readouterr().out

    assert text("greedy") == text("greedy=true", "seed=5")
    assert text("seed=1") == text("seed=1") != text("seed=2")


def test_it_begins_anew_without_a_prompt(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(f"ckpt_path={checkpoint}", "length=5")
    assert len(capsys.readouterr().out.replace("<unk>", "?")) == 6


def test_a_checkpoint_of_another_kind_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["state_dict"]["_extra_state"]
    content["choices"]["task"] = "digits"
    torch.save(content, tmp_path / "digits.ckpt")
    with pytest.raises(UserError, match="of task=digits has no vocabulary"):
        generate(f"ckpt_path={tmp_path / 'digits.ckpt'}")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "a checkpoint is needed"),
        (["ckpt_path=a.ckpt", "temprature=1"], "did you mean temperature?"),
        (["ckpt_path=a.ckpt", "hello"], "generate takes no 'hello'"),
        (["ckpt_path=a.ckpt", "length"], "generate takes no 'length'"),
        (["ckpt_path=a.ckpt", "length=many"], "length=many is not of the default"),
        (["ckpt_path=a.ckpt", "greedy=often"], "greedy=often is not of the default"),
        (["ckpt_path=a.ckpt", "length=0"], "length=0 must be 1 or more"),
        (["ckpt_path=a.ckpt", "temperature=0"], "use greedy"),
        (["ckpt_path=a.ckpt", "top_p=0"], "top_p=0.0 must lie above 0"),
        (["ckpt_path=a.ckpt", "context=0"], "context=0 must be 1 or more"),
        (["ckpt_path=nowhere.ckpt"], "there is no checkpoint at nowhere.ckpt"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(typed: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        generate(*typed)
    assert said in str(caught.value)


def test_values_are_taken_as_they_stand() -> None:
    request = parse(["ckpt_path=a=b.ckpt", "prompt=x=${y}, [1]: 'z'", "length=7", "greedy"])
    assert (request.ckpt_path, request.prompt) == ("a=b.ckpt", "x=${y}, [1]: 'z'")
    assert (request.length, request.greedy, request.top_p) == (7, True, 0.95)


def test_the_context_is_that_of_the_tasks_evaluation() -> None:
    lengths = {"eval_memory_length": 9, "memory_length": 5, "segment_length": 3}
    assert context_of(lengths) == 9
    assert context_of({**lengths, "eval_memory_length": None}) == 5
    assert context_of({**lengths, "eval_memory_length": None, "memory_length": 0}) == 3


def test_the_summary_compares_the_end_with_the_beginning() -> None:
    line = summary([9.0, *[0.001] * 64, *[0.002] * 64], 4.0)
    assert "1.0 ms after a warm-up of 32, 2.0 ms at the end" in line
    assert "4.0 evaluations of f each" in line


def test_help_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.exit_status(generate, "--help") == 0
    shown = capsys.readouterr().out
    for setting in ("prompt", "length", "temperature", "top_p", "greedy", "seed", "device"):
        assert f"  {setting}" in shown
