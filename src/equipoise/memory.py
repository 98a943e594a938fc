"""How much memory this machine, or the container that the process runs in, has left."""

from __future__ import annotations

from pathlib import Path

GIB = 2**30


def free_memory() -> int:
    """Bytes that this process can still get: of the machine, or of its container's share."""
    free = [_available()]
    share = Path("/sys/fs/cgroup")
    limit, used = (_number(share / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free.append(limit - used + _reclaimable(share / "memory.stat"))
    return max(0, min(free))


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _number(file: Path) -> int | None:
    text = file.read_text().strip() if file.is_file() else "max"
    return int(text) if text.isdigit() else None


def _reclaimable(file: Path) -> int:
    """The cache of files, which the system gives back when memory is short."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
