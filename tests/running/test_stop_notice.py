"""The notice that ends a sweep's jobs: a signal of their own, once, and none without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equipoise.running.interrupts import Stopped, stoppable
from equipoise.running.stop_notice import NOTICE, heeding, putting_up
from tests.end_to_end.conftest import heed_interrupts

JOB = """
import signal, sys, time
from pathlib import Path
from equipoise.running.stop_notice import heeding
heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
with heeding(Path(sys.argv[1])):
    print("at work", flush=True)
    sys.stdin.readline()
print(len(heard))
"""
PARENT = """
import subprocess, sys, time
from pathlib import Path
from equipoise.running.stop_notice import putting_up
with putting_up(Path(sys.argv[1])) as notice:
    child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); "
                              "time.sleep(3); print('whole', flush=True)"])
    child.wait()
    print(notice.exists())
"""


def test_the_notice_stops_a_job(tmp_path: Path) -> None:
    (tmp_path / NOTICE).touch()
    with pytest.raises(Stopped), stoppable(), heeding(tmp_path / NOTICE):
        time.sleep(30)


def test_an_orphan_stops(tmp_path: Path) -> None:
    with pytest.raises(Stopped), stoppable(), heeding(tmp_path / NOTICE, parent=1):
        time.sleep(30)


def test_without_it_a_job_is_left_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stoppable(), heeding(tmp_path / NOTICE, parent=os.getppid()):
        time.sleep(0.8)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("signalled", [True, False])
def test_a_job_gets_one_signal(signalled: bool, tmp_path: Path) -> None:
    """A whole group may have been sent one before the notice is seen."""
    command = [sys.executable, "-c", JOB, str(tmp_path / NOTICE)]
    with subprocess.Popen(command, text=True, stdin=-1, stdout=-1) as job:
        job.stdout.readline()
        if signalled:
            job.send_signal(signal.SIGTERM)
        (tmp_path / NOTICE).touch()
        time.sleep(1.5)
        assert job.communicate("\n")[0].split() == ["1"]


def test_a_terminals_signal_reaches_the_parent_alone(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], text=True, stdout=-1, stderr=-1,
        start_new_session=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert process.stdout.readline() == "up\n"
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert out.split() == ["whole", "True"]
    assert errors.startswith("interrupt: the jobs at work save")


def test_a_notice_of_before_is_taken_down(tmp_path: Path) -> None:
    (tmp_path / NOTICE).touch()
    with putting_up(tmp_path) as notice:
        assert not notice.exists()
