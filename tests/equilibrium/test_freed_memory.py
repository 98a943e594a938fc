"""Freed memory is kept, in a process of its own for each case: the setting is the process's."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from equipoise.equilibrium.freed_memory import USERS_OWN

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or bool(os.environ.get("LD_PRELOAD")),
    reason="this machine has another allocator than glibc's",
)

PROGRAM = """
import resource
import torch
from equipoise.equilibrium import Anderson

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def f(z):
    return 0.5 * z + 1.0

solver, z0 = Anderson(max_steps=6, tol=0.0), torch.zeros(4, 2**20)
solver.solve(f, z0)
before = faults()
for _ in range(8):
    solver.solve(f, z0)
print(faults() - before)
"""


def faults_of_later_solves(**environment: str) -> int:
    """Page faults of eight solves after the first; the buffers of one have 44,000 pages."""
    kept = {name: word for name, word in os.environ.items() if name not in USERS_OWN}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(ran.stdout)


def test_later_solves_find_their_memory() -> None:
    assert faults_of_later_solves() < 60_000  # the heap may still grow by some buffers


def test_who_has_chosen_an_allocator_keeps_it() -> None:
    assert faults_of_later_solves(EQUIPOISE_MALLOC="default") > 120_000
