"""A disk that takes no more, met by a real run: it has failed, and what was there before stays."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from equipoise.errors import RunFailed
from equipoise.running.api import run
from equipoise.running.build import build_run
from tests.end_to_end.test_resumed_run import WORDS

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.filterwarnings("ignore:.*did not reach the tolerance"),
    pytest.mark.filterwarnings("ignore:the results could not be written"),
]


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


class FullAt(Callback):
    """From a batch of the second epoch on, no file grows above a size, or above that of `file`.

    The system then answers with an OSError in the middle of writing, as on a full disk.
    """

    def __init__(self, size: int | Path, signalled: bool) -> None:
        self.size = size
        self.signalled = signalled

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == 7:
            size = self.size.stat().st_size if isinstance(self.size, Path) else self.size
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
            if self.signalled:
                os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("size", "signalled", "said"),
    [
        (50_000, False, r"last\.ckpt could not be saved: File too large; free space"),
        pytest.param(
            50_000, True, r"last\.ckpt could not be saved: File too large", marks=pytest.mark.slow
        ),
        pytest.param(
            "metrics.csv", False, "could not be written: File too large", marks=pytest.mark.slow
        ),
    ],
    ids=["after an epoch", "at a signal", "curve"],
)
def test_a_full_disk_is_a_failed_run_with_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | str, signalled: bool, said: str
) -> None:
    folder = tmp_path / "run"

    def with_limit(*args: Any) -> Any:
        built = build_run(*args)
        full = FullAt(folder / size if isinstance(size, str) else size, signalled)
        built.trainer.callbacks.insert(0, full)  # type: ignore[attr-defined]
        return built

    words = (*WORDS, "callbacks.checkpoint_best=null", f"run_dir={folder}")
    with monkeypatch.context() as patched:
        patched.setattr("equipoise.running.build.build_run", with_limit)
        with pytest.raises(RunFailed, match=said) as failure:
            run(*words, "trainer.max_epochs=2")
    assert "\n" not in str(failure.value)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert [file.name for file in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
    if isinstance(size, int):  # else there is no room for it either
        assert json.loads((folder / "metrics.json").read_text())["status"] == "failed"
    metrics = run(*words, "trainer.max_epochs=2", "resume=auto")
    assert (metrics["status"], metrics["steps"]) == ("completed", 10)
