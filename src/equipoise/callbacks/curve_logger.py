"""metrics.csv: a row holds what was measured, and an empty cell what was not."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from torch import Tensor


class CurveLogger(CSVLogger):
    """Lightning's CSVLogger, which leaves empty what is not a number.

    A mean over no finite value, or a score of classes that do not occur, is NaN; readers of csv
    files understand an empty cell as missing, and some take "nan" for text.
    """

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Record a row of numbers and texts."""
        super().log_metrics({k: v for k, v in metrics.items() if not _is_nan(v)}, step)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | Tensor) and math.isnan(value)
