"""A run of all faults takes long, so a failure is printed when it happens."""

from __future__ import annotations

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print the end of what a failed test has to say."""
    if report.failed:
        print(f"FAILED {report.nodeid}\n{report.longreprtext[-1800:]}", flush=True)
