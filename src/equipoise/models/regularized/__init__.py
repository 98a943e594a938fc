"""Models with a regularised inner problem, whose hyper-parameters are what is trained."""

from equipoise.models.regularized.kernel_ridge import KernelRidge
from equipoise.models.regularized.logistic_regression import LogisticRegression
from equipoise.models.regularized.model import RegularizedModel
from equipoise.models.regularized.nonlinear_least_squares import NonlinearLeastSquares

__all__ = ["KernelRidge", "LogisticRegression", "NonlinearLeastSquares", "RegularizedModel"]
