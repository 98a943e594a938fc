"""The pictures and the page that a run leaves behind."""

from equipoise.callbacks.report.run_report import RunReport

__all__ = ["RunReport"]
