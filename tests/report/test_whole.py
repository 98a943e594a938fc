"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from equipoise.report.whole import reason, whole, write_whole


@pytest.mark.parametrize("content", ["läufe\r\n", b"\x00\xff"], ids=["text", "bytes"])
def test_a_file_holds_what_was_written_and_nothing_lies_beside_it(
    tmp_path: Path, content: str | bytes
) -> None:
    file = tmp_path / "new" / "file"
    write_whole(file, content)
    assert file.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_fails_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    file = tmp_path / "file"
    write_whole(file, "before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with whole(tmp_path / "file") as file:
            file.write("part")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_the_reason_is_the_systems_even_behind_another_error() -> None:
    behind = RuntimeError("unexpected pos 64")
    behind.__context__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert reason(behind) == "No space left on device"
