"""The ledger: what is no entry is refused, and the lifetime limit holds whoever else records."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from equipoise.privacy import AlreadySpent, Client, Ledger, PrivacyError, RoundDescription
from equipoise.privacy.client import folder_lock
from equipoise.privacy.client.folder_lock import FolderLock
from equipoise.privacy.client.ledger import Spent

CELLS = tuple(((low, low + 4),) for low in range(0, 16, 4))
ROUND = RoundDescription("ages", 0, 1, 1.0, "oue", 4, (16,), (0,), CELLS)
ENTRY = Spent("ages", 0, "00" * 8, 1.0, "01" * 38)
DEVICE = """
import sys, time
from dataclasses import replace
from equipoise.privacy.client import Client
from equipoise.privacy.client.errors import AlreadySpent
from equipoise.privacy.client.ledger import Ledger
from equipoise.privacy.client.round import RoundDescription
cells = tuple(((low, low + 4),) for low in range(0, 16, 4))
description = RoundDescription("ages", 0, 1, 1.0, "oue", 4, (16,), (0,), cells)
def client(folder, task, limit):
    made = Client(Ledger(folder), 1.0, lifetime_epsilon=limit)
    made.join(task, [1.0])
    return made, replace(description, task=task)
"""
RACE = (
    DEVICE
    + """
root, own, trials = sys.argv[1], sys.argv[2], int(sys.argv[3])
ready = [client(f"{root}/{trial}", own, 1.0) for trial in range(trials)]
print("ready", flush=True)
start = float(sys.stdin.readline())
for trial, (made, asked) in enumerate(ready):
    while time.time() < start + 0.03 * trial:
        pass
    try:
        made.report(asked, 3)
        print(trial, flush=True)
    except AlreadySpent:
        continue
"""
)
SPENDER = (
    DEVICE
    + """
for number in range(1000):
    made, asked = client(sys.argv[1], f"{sys.argv[2]}-{number}", 1000.0)
    print(asked.task, made.report(asked, 3).hex(), flush=True)
"""
)
HOLDER = (
    DEVICE
    + """
from pathlib import Path
from equipoise.privacy.client.folder_lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
)


def process(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def client(folder: Path, task: str = "ages", **limits: float) -> Client:
    made = Client(Ledger(folder), **{"epsilon_limit": 4.0, **limits})
    made.join(task, [1.0])
    return made


def test_processes_that_answer_at_the_same_moment_keep_the_lifetime_limit(tmp_path: Path) -> None:
    """Four processes, each asked by a survey of its own; the limit is one report of epsilon 1."""
    trials = 15
    devices = [process(RACE, tmp_path, f"survey-{number}", trials) for number in range(4)]
    assert [line(device) for device in devices] == ["ready"] * 4
    start = str(time.time() + 0.1)
    for device in devices:
        assert device.stdin is not None
        device.stdin.write(start + "\n")
        device.stdin.flush()
    answered = [trial for device in devices for trial in device.communicate()[0].split()]
    assert sorted(answered, key=int) == [str(trial) for trial in range(trials)]
    for trial in range(trials):
        assert len(list(Ledger(tmp_path / str(trial)).entries())) == 1


def test_a_process_that_is_killed_while_it_holds_the_lock_does_not_keep_it(tmp_path: Path) -> None:
    made = client(tmp_path)
    holder = process(HOLDER, tmp_path)
    assert line(holder) == "held"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.communicate()
    assert made.report(ROUND, 3)


def test_a_lock_that_is_held_is_waited_for_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client(tmp_path)
    monkeypatch.setattr(folder_lock, "PATIENCE", 0.05)
    with (
        FolderLock(tmp_path),
        pytest.raises(PrivacyError, match=r"has held .* for 0\.05 seconds; end it and try again"),
    ):
        made.report(ROUND, 3)
    assert made.ledger.spent("ages") is None
    assert made.report(ROUND, 3)


def test_what_was_sent_before_a_kill_is_in_the_ledger(tmp_path: Path) -> None:
    """A process that spends without end is killed anywhere; nothing is lost, torn, or blocked."""
    for attempt in range(3):
        spender = process(SPENDER, tmp_path, attempt)
        sent = [line(spender)]
        time.sleep(0.02 + 0.031 * attempt)
        os.kill(spender.pid, signal.SIGKILL)
        sent += spender.communicate()[0].split("\n")
        ledger = Ledger(tmp_path)
        total = math.fsum(entry.epsilon for entry in ledger.entries())
        whole = [text.split() for text in sent if len(text.split()) == 2]
        assert total >= len(whole) > 0
        for task, report in whole:
            spent = ledger.spent(task)
            assert spent is not None
            assert spent.report.startswith(report)  # the last line may have been torn
    assert client(tmp_path, lifetime_epsilon=total + 1).report(ROUND, 3)
    with pytest.raises(AlreadySpent, match="above the lifetime limit"):
        client(tmp_path, "other", lifetime_epsilon=total + 1).report(
            replace(ROUND, task="other"), 3
        )


WRONG_ENTRIES: list[object] = [
    {},
    [],
    None,
    "text",
    {**asdict(ENTRY), "more": 1},
    {key: value for key, value in asdict(ENTRY).items() if key != "epsilon"},
    *({**asdict(ENTRY), "epsilon": wrong}
      for wrong in (math.nan, math.inf, -math.inf, -1.0, 0, "1", True, None, [1], 10**400)),
    *({**asdict(ENTRY), "task": wrong} for wrong in ("other", 3, None, "", "\ud800")),
    *({**asdict(ENTRY), "round": wrong} for wrong in (-1, 0.5, "0", True, None, 10**9)),
    *({**asdict(ENTRY), "report": wrong} for wrong in ("xy", "0", "", 3, None, "00 00", "AB")),
    *({**asdict(ENTRY), "partition": wrong} for wrong in ("xy", "00", 3, None, "00 " * 8)),
]  # fmt: skip


def assert_nothing_is_sent(folder: Path) -> None:
    made = client(folder)
    for asked in (ROUND, replace(ROUND, task="incomes")):
        made.join(asked.task, [1.0])
        limited = Client(made.ledger, 4.0, lifetime_epsilon=100.0)
        with pytest.raises(AlreadySpent, match="damaged or cannot be read; nothing may be sent"):
            limited.report(asked, 3)
    assert made.ledger.spent("incomes") is None


@pytest.mark.parametrize("content", WRONG_ENTRIES, ids=lambda content: ascii(content)[:60])
def test_an_entry_that_is_none_sends_nothing(tmp_path: Path, content: object) -> None:
    ledger = Ledger(tmp_path)
    ledger.record(ENTRY)
    next(tmp_path.glob("*.report")).write_text(json.dumps(content))
    assert_nothing_is_sent(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"\0"]
)
def test_an_entry_that_is_no_json_sends_nothing(tmp_path: Path, content: bytes) -> None:
    Ledger(tmp_path).record(ENTRY)
    next(tmp_path.glob("*.report")).write_bytes(content)
    assert_nothing_is_sent(tmp_path)


def test_an_entry_that_is_a_folder_or_leads_nowhere_sends_nothing(tmp_path: Path) -> None:
    for name in ("folder", "link"):
        ledger = Ledger(tmp_path / name)
        ledger.record(ENTRY)
        entry = next((tmp_path / name).glob("*.report"))
        entry.unlink()
        if name == "folder":
            entry.mkdir()
        else:
            entry.symlink_to(tmp_path / "nowhere")
        assert_nothing_is_sent(tmp_path / name)


@pytest.mark.parametrize(
    "content", [{}, [], {"task": "ages"}, {"task": "ages", "group": "0"},
                {"task": "ages", "group": -1}, {"task": "other", "group": 0},
                {"task": "ages", "group": True}, {"task": "ages", "group": math.nan}],
)  # fmt: skip
def test_a_group_that_is_none_sends_nothing(tmp_path: Path, content: object) -> None:
    made = client(tmp_path)
    next(tmp_path.glob("*.group")).write_text(json.dumps(content))
    for call in (lambda: made.report(ROUND, 3), lambda: made.join("ages", [1.0])):
        with pytest.raises(AlreadySpent, match="damaged"):
            call()


@pytest.mark.parametrize("change", [{"epsilon": math.nan}, {"epsilon": -1.0}, {"report": "x"}])
def test_a_wrong_entry_is_not_recorded(tmp_path: Path, change: dict[str, object]) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(PrivacyError):
        ledger.record(replace(ENTRY, **change))  # type: ignore[arg-type]
    assert not list(ledger.entries())


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "spent").write_text("")
    for folder in (tmp_path / "spent", tmp_path / "spent" / "below"):
        with pytest.raises(PrivacyError, match="cannot be made"):
            Ledger(folder)


def test_the_group_that_was_recorded_first_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.record_group("ages", 1) == 1
    assert ledger.record_group("ages", 2) == Ledger(tmp_path).group("ages") == 1
    assert [path.suffix for path in tmp_path.iterdir() if path.name != ".lock"] == [".group"]
    with pytest.raises(PrivacyError, match="number of a round"):
        ledger.record_group("other", -1)


def test_a_folder_without_locks_and_one_that_is_gone_send_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "ledger")

    def refuse(file: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(folder_lock, "_take", refuse)
        with pytest.raises(PrivacyError, match=r"cannot be locked \(No locks available\)"):
            ledger.record(ENTRY)
    assert not list(ledger.entries())
    shutil.rmtree(tmp_path / "ledger")
    with pytest.raises(PrivacyError, match="cannot be opened"):
        ledger.record(ENTRY)
