"""All faults by their names, and the table of docs/faults.md that they make."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults import computing, data, disk, reading, signals, surroundings
from tests.faults.fault import Fault

PARTS = {
    "Signals": signals.FAULTS,
    "Disks": disk.FAULTS,
    "Files of the run": reading.FAULTS,
    "Numbers, memory, code and processes": computing.FAULTS,
    "Data": data.FAULTS,
    "Services and surroundings": surroundings.FAULTS,
}
FAULTS: dict[str, Fault] = {fault.name: fault for part in PARTS.values() for fault in part}


def rows(part: str) -> Iterator[str]:
    """The lines of the page's table of one part."""
    yield "| fault | what the run does | status | what is lost |"
    yield "|---|---|---|---|"
    for fault in PARTS[part]:
        if fault.name != "none":
            yield f"| {fault.what} | {fault.then} | {fault.status} | {fault.lost} |"
