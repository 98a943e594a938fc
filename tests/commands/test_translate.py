"""`translate` from a real, briefly trained checkpoint: a line for a line; and what it refuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from equipoise import commands
from equipoise.commands.translate import Line, Translator, numbered, one_line, parse, summary
from equipoise.data.text.vocabulary import Subwords
from equipoise.errors import UserError
from equipoise.models.beam_search import BeamSearch
from equipoise.running.api import run

WORDS = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four"}
PAIRS = [(f"{one} {two}", f"{WORDS[one]} {WORDS[two]}") for one in WORDS for two in WORDS]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translate")
    for split in ("train", "validation", "test"):
        for language, side in (("de", 0), ("en", 1)):
            text = "".join(f"{pair[side]}\n" for pair in PAIRS)
            (folder / f"{split}.{language}").write_text(text)
    run(
        "task=parallel_folder", f"task.path={folder}", "task.subwords=280", "task.batch_size=16",
        "model=kernel_transformer", "model.size=tiny", "model.width=32", "model.inner_width=64",
        "model.layers=1", "task.encoder_layers=1", "model.dropout=0", "trainer.max_epochs=150",
        "trainer.check_val_every_n_epoch=75", "optimizer.lr=0.005", "task.max_length=12",
        "logger=none", f"run_dir={folder / 'run'}", "callbacks.progress=null",
    )  # fmt: skip
    return folder / "run" / "checkpoints" / "best.ckpt"


def translate(monkeypatch: pytest.MonkeyPatch, text: bytes, *arguments: str) -> int:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    return commands.run(["translate", *arguments])


def test_the_run_shows_its_translations(checkpoint: Path) -> None:
    folder = checkpoint.parents[1]
    details = json.loads((folder / "metrics.json").read_text())["details"]
    assert set(details["signatures"]) == {"bleu", "chrf"}
    html = (folder / "report" / "index.html").read_text()
    for kind in ("encoder", "decoder", "cross"):
        assert (folder / "report" / f"attention_{kind}.png").is_file()
    for text in ("<h2>Samples</h2>", "<th>Translation</th>", details["samples"][4]["source"]):
        assert text in html


def test_each_line_is_translated_in_its_place(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = "\n".join(source for source, _ in PAIRS)
    text = f"\n{sources}\n  \n".encode()
    assert translate(monkeypatch, text, f"ckpt_path={checkpoint}", "batch_size=5") == 0
    written = capsys.readouterr()
    lines = written.out.split("\n")
    assert len(lines) == 19
    assert lines[0] == lines[17] == lines[18] == ""
    right = sum(one == target for one, (_, target) in zip(lines[1:17], PAIRS, strict=True))
    assert right >= 14
    assert "16 sentences" in written.err


def test_nothing_depends_on_the_batch(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"zwei drei\neins\nvier vier vier vier\n"

    def written(*arguments: str) -> str:
        translate(monkeypatch, text, f"ckpt_path={checkpoint}", *arguments)
        return capsys.readouterr().out

    assert written("batch_size=1") == written("batch_size=3") == written("batch_size=2", "beam=5")


def test_the_real_command_reads_a_pipe(checkpoint: Path) -> None:
    arguments = [sys.executable, "-m", "equipoise", "translate", f"ckpt_path={checkpoint}"]
    done = subprocess.run(arguments, input=b"zwei drei\n\n", capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout == b"two three\n\n"
    assert done.stderr.startswith(b"1 sentences, ")


def test_a_long_sentence_is_translated_with_a_warning_that_names_its_line(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"eins zwei\n" + b"eins zwei drei vier " * 10 + b"\n"
    translate(monkeypatch, text, f"ckpt_path={checkpoint}", "beam=1")
    written = capsys.readouterr()
    assert "warning: line 2 has" in written.err
    assert "line 1" not in written.err
    assert len(written.out.splitlines()) == 2


class Short:
    """A network that reads no more than four tokens."""

    def encode(self, source: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"there are positions for 4 tokens, not {source.shape[1]}")


def test_what_the_model_cannot_read_is_refused_with_the_line() -> None:
    vocabulary = Subwords.of("ein hund rennt", 257)
    translator = Translator(Short(), vocabulary, BeamSearch(0), None, "cpu")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"line 7 has 4 tokens, .*positions for 4.*: split"):
        translator([Line(6, "x"), Line(7, "abc"), Line(8, "")])


def test_a_language_model_is_sent_to_generate_and_a_translation_to_translate(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"use python -m equipoise translate"):
        commands.run(["generate", f"ckpt_path={checkpoint}"])
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["task"]["about"]["wants"] = "token_logits"
    content["choices"]["task"] = "wikitext2"
    torch.save(content, tmp_path / "words.ckpt")
    with pytest.raises(UserError, match=r"task=wikitext2 .* use python -m equipoise generate"):
        translate(monkeypatch, b"", f"ckpt_path={tmp_path / 'words.ckpt'}")
    del content["state_dict"]["_extra_state"]
    torch.save(content, tmp_path / "digits.ckpt")
    with pytest.raises(UserError, match="no vocabulary: translate needs a checkpoint of a tr"):
        translate(monkeypatch, b"", f"ckpt_path={tmp_path / 'digits.ckpt'}")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "a checkpoint is needed"),
        (["ckpt_path=a.ckpt", "baem=1"], "did you mean beam?"),
        (["ckpt_path=a.ckpt", "beam"], "translate takes no 'beam'"),
        (["ckpt_path=a.ckpt", "beam=wide"], "beam=wide is not of the default"),
        (["ckpt_path=a.ckpt", "beam=0"], "beam=0 must be 1 or more"),
        (["ckpt_path=a.ckpt", "length_penalty=-1"], "length_penalty=-1.0 must be 0 or more"),
        (["ckpt_path=a.ckpt", "length_penalty=nan"], "length_penalty=nan must be 0 or more"),
        (["ckpt_path=a.ckpt", "batch_size=0"], "batch_size=0 must be 1 or more"),
        (["ckpt_path=nowhere.ckpt"], "there is no checkpoint at nowhere.ckpt"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(typed: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        commands.run(["translate", *typed])
    assert said in str(caught.value)


def test_settings_that_are_not_typed_are_left_to_the_task() -> None:
    request = parse(["ckpt_path=a.ckpt", "beam=3", "trust=[mine, yours]"])
    assert (request.beam, request.length_penalty, request.batch_size) == (3, None, 32)
    assert request.trust == ("mine", "yours")


def test_lines_are_numbered_and_a_wrong_encoding_is_told() -> None:
    lines = numbered(["\ufeffgrün \r\n".encode(), b"\n", "grün".encode("latin-1")])
    assert [next(lines), next(lines)] == [Line(1, "grün"), Line(2, "")]
    with pytest.raises(UserError, match=r"line 3 of the input is not UTF-8 .* at byte 2"):
        next(lines)


def test_a_translation_is_one_line() -> None:
    assert one_line("a\nb\r\nc") == "a b c"


def test_the_summary_is_per_sentence() -> None:
    assert summary(4, 30, 1.0) == "4 sentences, 30 tokens, 250 ms a sentence"
    assert summary(0, 0, 1.0).startswith("0 sentences, 0 tokens")


def test_help_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["translate", "--help"]
    assert commands.exit_status(commands.run, arguments) == 0
    shown = capsys.readouterr().out
    for setting in ("ckpt_path", "beam", "length_penalty", "batch_size", "device", "trust"):
        assert f"  {setting}=" in shown
