"""Files from elsewhere that would run code, take memory or lead out of their folder: all refused.

`hostile_files` makes them. Every reader meets them in a process of its own, whose memory is
measured; the commands, which take seconds to start, meet one of each kind.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from equipoise.config.compose import compose, storable
from equipoise.errors import LIMITS, TooLarge, UserError, limit, refuse_above
from tests.end_to_end import hostile_files
from tests.end_to_end.conftest import ROOT, environment

MOST_MIB = 300
"""What a refusal may take beside the reader's own modules; docs/threat_model.md says so too."""
PAGE = (ROOT / "docs" / "threat_model.md").read_text()
READERS = sum(len(readers) for readers in hostile_files.CASES.values())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """What every reader said, and the folder of the files."""
    folder = tmp_path_factory.mktemp("hostile")
    done = subprocess.run(
        [sys.executable, "-m", "tests.end_to_end.hostile_files", str(folder)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()], folder


def test_every_reader_refuses_with_one_sentence(told: tuple[list[dict[str, Any]], Path]) -> None:
    answers, _ = told
    assert len(answers) == READERS > 50
    for answer in answers:
        assert "refused" in answer, answer
        assert "\n" not in answer["refused"], answer
        assert len(answer["refused"]) < 600, answer


def test_nothing_was_executed(told: tuple[list[dict[str, Any]], Path]) -> None:
    answers, folder = told
    assert answers
    assert not (folder / hostile_files.CANARY).exists()
    os.system(hostile_files.Payload(folder).command)  # the canary would have sung
    assert (folder / hostile_files.CANARY).exists()


def test_memory_is_bounded(told: tuple[list[dict[str, Any]], Path]) -> None:
    answers, _ = told
    assert max(answer["mib"] for answer in answers) <= MOST_MIB
    assert f"{MOST_MIB} MB" in PAGE


def test_every_limit_is_told_and_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == sorted(LIMITS)
    for name, most in LIMITS.items():
        refuse_above(name, most, "it has")
        with pytest.raises(TooLarge, match=f"more than {most:,} are not read.*{name}=<number>"):
            refuse_above(name, most + 1, "it has")
        monkeypatch.setenv("EQUIPOISE_LIMITS", f"{name}={most + 1}")
        refuse_above(name, most + 1, "it has")
        assert all(limit(other) == LIMITS[other] for other in LIMITS if other != name)


@pytest.mark.parametrize("word", ["picture_pixel=1", "table_columns", "text_bytes=many"])
def test_a_misspelt_limit_is_named(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIPOISE_LIMITS", word)
    with pytest.raises(UserError, match=r"EQUIPOISE_LIMITS: .*(did you mean|needs a number)"):
        limit("table_columns")


def test_every_reader_has_its_row_in_the_page() -> None:
    """A file that opens others has to tell where they come from."""
    told = set(re.findall(r"`((?:\w+/)*\w+\.py)`", PAGE))
    missing = [name for name in opening() if name not in told]
    assert not missing


def opening() -> Iterator[str]:
    """The files of the package that read some format."""
    package = ROOT / "src" / "equipoise"
    reading = re.compile(
        r"torch\.load\(|np\.load\(|np\.memmap\(|read_table\(f|read_csv\(|open_file\(|Image\.open\("
        r"|load_file\(f|safe_open\(f|read_json\(|read_yaml\(|json\.loads\(|bounded_\w+\(f|from_parquet"
    )
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).as_posix()
        if reading.search(file.read_text()) and not name.startswith(("privacy/", "config/help")):
            yield name


FORBIDDEN = (
    r"shell=True", r"os\.system\(", r"os\.popen\(", r"(?<![\w.])eval\(", r"(?<![\w.])exec\(",
    r"\bpickle\.loads?\(", r"\bUnpickler\(", r"yaml\.(load|full_load|unsafe_load)\(",
    r"weights_only=False(?=.*load)", r"allow_pickle=True", r"extractall\(", r"tarfile",
    r"trust_remote_code=True", r"verify=False", r"mktemp\(", r"dill|cloudpickle|joblib\.load",
)  # fmt: skip


def test_the_source_starts_no_shell_and_evaluates_nothing() -> None:
    files = [ROOT / name for name in ("train.py", "evaluate.py")]
    files += sorted((ROOT / "src").rglob("*.py"))
    assert len(files) > 400
    found = [
        f"{file.relative_to(ROOT)}: {pattern}"
        for file in files
        for pattern in FORBIDDEN
        if re.search(pattern, file.read_text())
    ]
    assert not found


def test_every_checkpoint_is_read_without_its_code() -> None:
    loads = [
        line
        for file in (ROOT / "src").rglob("*.py")
        for line in file.read_text().splitlines()
        if "torch.load(" in line
    ]
    assert len(loads) >= 3
    assert all("weights_only=True" in line for line in loads)


def of_a_checkpoint(folder: Path, **changed: Any) -> Path:
    """A checkpoint of the default run whose configuration somebody has changed."""
    import torch

    composition = compose([])
    content = {
        "config": storable(composition.config) | changed,
        "choices": dict(composition.choices),
        "state_dict": {},
        "epoch": 0,
        "global_step": 0,
        "optimizer_states": [],
        "loops": {},
        "lr_schedulers": [],
    }
    torch.save(content, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def foreign(folder: Path) -> dict[str, tuple[list[str], str]]:
    """For each kind of file a command that is given one, and what it says."""
    config = storable(compose([]).config)
    writing = {**config["callbacks"]["checkpoint_last"], "dirpath": str(folder / "elsewhere")}
    model = {**config["model"], "_target_": "os.system"}
    callbacks = {**config["callbacks"], "checkpoint_last": writing}
    of_a_checkpoint(subfolder(folder, "code"), model=model)
    of_a_checkpoint(subfolder(folder, "place"), callbacks=callbacks)
    return {
        "malicious_pickle": (
            ["-m", "equipoise", "convert-multimodal", "{}"], "holds posix.system"
        ),
        "checkpoint_with_payload": (["evaluate.py", "ckpt_path={}"], "holds pickled objects"),
        "checkpoint_bomb": (["train.py", "ckpt_path={}"], "unpacks to more than it holds"),
        "arrays_bomb": (["train.py", "init_from={}"], "unpacks to more"),
        "wide_csv": (
            ["train.py", "task=range_query", "task.path={}", "task.columns=[c]"],
            "more than 10,000 are not read",
        ),
        "linked_picture": (["train.py", "task=image_folder", "task.path={}"], "leads out of"),
        "code": (["evaluate.py", f"ckpt_path={folder / 'code' / 'changed.ckpt'}"], "os.system"),
        "place": (
            ["train.py", f"ckpt_path={folder / 'place' / 'changed.ckpt'}"], "outside its folder"
        ),
    }  # fmt: skip


def subfolder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


@pytest.mark.slow
def test_the_commands_refuse_them(tmp_path: Path) -> None:
    """One file of each kind through the real command line: status 2, one sentence, no canary."""
    for name, (words, said) in foreign(tmp_path).items():
        make = getattr(hostile_files, name, None)
        file = make(tmp_path) if make is not None else ""
        done = subprocess.run(
            [sys.executable, *(word.format(file) for word in words)],
            cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 2, (name, done.stderr)
        assert "Traceback" not in done.stderr
        assert said in done.stderr, (name, done.stderr)
        assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / hostile_files.CANARY).exists()
    assert not (tmp_path / "elsewhere").exists()
