"""Who gets a folder, what is refused, and what a run that never began leaves behind."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from equipoise.config.compose import compose
from equipoise.errors import UserError
from equipoise.running import folders
from equipoise.running.folders import LOCK, claim, claim_new, held, run_directory

HOLD = """
import sys
from pathlib import Path
from equipoise.running.folders import claim
claim(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "claims", {})
    return tmp_path


def test_runs_of_one_second_get_folders_of_their_own() -> None:
    composition = compose([])
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: run_directory(composition, "train"), range(8)))
    assert len(set(made)) == 8
    assert all(path.is_dir() for path in made)


@pytest.mark.parametrize("existing", [False, True])
def test_of_two_runs_in_one_folder_one_is_refused(here: Path, existing: bool) -> None:
    if existing:
        (here / "x").mkdir()
    command = [sys.executable, "-c", HOLD, str(here / "x")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another run is active in run_dir=x"):
            claim(Path("x"))
        (here / "x" / "last.ckpt").touch()
        for checkpoint in ("x/last.ckpt", None):  # nor may two resume one run
            with pytest.raises(UserError, match="another run is active in run_dir=x"):
                claim(Path("x"), checkpoint)
        one.kill()
    assert claim(Path("x"), "x/last.ckpt") == Path("x")  # a lock ends with its process


def test_one_process_takes_a_folder_once() -> None:
    claim(Path("x"))
    with pytest.raises(UserError, match="another run is active"):
        claim(Path("x"))


def test_a_folder_with_results_is_refused_but_to_its_own_checkpoint(here: Path) -> None:
    checkpoint = here / "x" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    with pytest.raises(UserError, match=r"run_dir=x is not empty; .* or add resume=auto"):
        claim(Path("x"))
    with held(claim(Path("x"), checkpoint)):
        pass
    assert checkpoint.is_file()
    assert not (here / "x" / LOCK).exists()


def test_an_evaluation_does_not_write_into_the_training_s_folder(here: Path) -> None:
    (here / "x" / "checkpoints").mkdir(parents=True)
    composition = compose(["run_dir=x", "ckpt_path=x/checkpoints/best.ckpt"])
    with pytest.raises(UserError, match="run_dir=x is not empty"):
        run_directory(composition, "evaluate")


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_file_is_no_folder(here: Path, path: str) -> None:
    (here / "file").touch()
    with pytest.raises(UserError, match=f"run_dir={path} is not a folder"):
        claim(Path(path))


def test_links_in_a_circle_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UserError, match=r"cannot write to run_dir=.*circle: Too many levels"):
        claim(tmp_path / "circle")


def begin(path: Path, *left: str) -> None:
    with held(path):
        (path / ".hydra").mkdir()
        (path / "train.log").touch()
        for name in left:
            (path / name).touch()


def test_a_run_that_never_began_leaves_nothing(here: Path) -> None:
    begin(claim_new(Path("runs/digits/mdeq"), "now"))
    assert list(here.iterdir()) == []


def test_a_run_that_began_is_kept(here: Path) -> None:
    begin(claim_new(Path("runs"), "now"), "config.yaml")
    assert sorted(p.name for p in (here / "runs" / "now").iterdir()) == [
        ".hydra", "config.yaml", "train.log",
    ]  # fmt: skip


def test_only_what_the_process_has_made_is_removed(here: Path) -> None:
    (here / "mine").mkdir()
    begin(claim(Path("mine/first")))
    assert list(here.iterdir()) == [here / "mine"]
    begin(claim(Path("mine")))
    assert list(here.iterdir()) == [here / "mine"]
    assert list((here / "mine").iterdir()) == []


@pytest.mark.parametrize("name", ["new", "empty"])
def test_a_run_refused_before_its_first_step_leaves_nothing_either(here: Path, name: str) -> None:
    (here / "empty").mkdir()
    path = claim(Path(name))
    folders.refuse(path)
    begin(path, "config.yaml", "metrics.json")
    assert list(here.rglob("*")) == [here / "empty"]


def test_a_refusal_does_not_touch_what_was_there_before(here: Path) -> None:
    (here / "x").mkdir()
    (here / "x" / "last.ckpt").touch()
    path = claim(Path("x"), "x/last.ckpt")
    folders.refuse(path)
    begin(path, "config.yaml")
    assert {"last.ckpt", "config.yaml"} <= {file.name for file in path.iterdir()}


def test_the_folder_of_another_run_stays(here: Path) -> None:
    first = claim_new(Path("runs"), "now")
    second = claim_new(Path("runs"), "now")
    begin(first)
    assert second.is_dir()
    begin(second)
    assert not second.exists()
