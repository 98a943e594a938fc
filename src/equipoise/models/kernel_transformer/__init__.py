"""The transformer whose attention is any kernel smoother (1908.11775)."""

from equipoise.models.kernel_transformer.model import KernelTransformer

__all__ = ["KernelTransformer"]
