"""Signals outside training steps: the status of the signal, a sentence, no traceback."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from equipoise.commands import exit_status
from equipoise.running.interrupts import SIGNALS, Stopped, stoppable
from tests.end_to_end.conftest import ROOT, SMALL, environment, heed_interrupts


@pytest.fixture(autouse=True)
def in_the_foreground() -> Iterator[None]:
    """A test run in a shell's background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(number: signal.Signals) -> int:
    os.kill(os.getpid(), number)
    return 0


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_stops_and_the_handlers_are_given_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped), stoppable():
        send(number)
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stoppable():
        send(signal.SIGINT)


IMPORTED = """
import os, signal
swallowed = False
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    swallowed = True
"""


def test_a_signal_during_an_import_stops_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries may swallow what is raised while they are imported, and torch and numpy abort."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "interrupted_outer.py").write_text("import interrupted_inner\nended = True")
    (tmp_path / "interrupted_inner.py").write_text(IMPORTED)
    with pytest.raises(Stopped), stoppable():
        importlib.import_module("interrupted_outer")
    assert sys.getprofile() is None
    inner = sys.modules["interrupted_inner"]
    assert (sys.modules["interrupted_outer"].ended, inner.swallowed) == (True, False)


@pytest.mark.parametrize("number", SIGNALS)
def test_every_command_answers_a_signal_in_a_sentence(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(send, number) == {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 138}[number.name]
    assert capsys.readouterr().err == "Interrupted before there was anything to save\n"


SWALLOWS = """
import os, signal, sys
from equipoise.running.interrupts import SIGNALS, Stopped, stoppable
with stoppable():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except Stopped:
        os.kill(os.getpid(), signal.SIGINT)
print("not reached")
"""


def test_a_second_signal_ends_the_process_at_once() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SWALLOWS], env=environment(), capture_output=True, text=True,
        preexec_fn=heed_interrupts, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def interrupted(folder: Path, words: list[str], seconds: float, signals: int) -> tuple[int, str]:
    """Start a command and send it SIGINT after a while, twice perhaps."""
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_interrupts,
    )  # fmt: skip
    time.sleep(seconds)
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


TRAINING = [str(ROOT / "train.py"), *SMALL, "trainer.max_epochs=100"]


@pytest.mark.parametrize("signals", [1, 2])
def test_a_young_run_ends_without_a_traceback(tmp_path: Path, signals: int) -> None:
    status, errors = interrupted(tmp_path, TRAINING, 3.0, signals)
    assert status == 130, errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0])
@pytest.mark.parametrize("words", [TRAINING, [TRAINING[0], "-m", "seed=1,2", *TRAINING[1:]]],
                         ids=["run", "sweep"])  # fmt: skip
def test_whenever_a_signal_comes_the_status_is_130(
    tmp_path: Path, seconds: float, words: list[str]
) -> None:
    status, errors = interrupted(tmp_path, words, seconds, 1)
    assert (status, "Traceback" in errors) == (130, False), errors


AT_WORK = """
import atexit, sys, threading
from equipoise.running.interrupts import leave

def write():
    while True:
        sys.stderr.write("still at work" * 100)

atexit.register(print, "closed")
threading.Thread(target=write, daemon=True).start()
print("refused")
leave(2)
"""


def test_a_refused_command_ends_with_its_status_whatever_is_still_at_work() -> None:
    """A thread that holds a stream while Python takes itself down would abort the process."""
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", AT_WORK], capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 2
        assert ended.stdout == "refused\nclosed\n"
