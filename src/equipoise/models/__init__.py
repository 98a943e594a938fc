"""The networks: one file or folder per family, each an nn.Module from batch inputs to outputs."""

from equipoise.models.barlow import BarlowTwins
from equipoise.models.coupling_transformer import CouplingTransformer
from equipoise.models.kernel_transformer import KernelTransformer
from equipoise.models.mdeq import MDEQ
from equipoise.models.mult import MulT
from equipoise.models.regularized import KernelRidge, LogisticRegression, NonlinearLeastSquares
from equipoise.models.resnet import ResNet
from equipoise.models.transformer import DEQTransformer, Transformer
from equipoise.models.trellisnet import DEQTrellisNet, TrellisNet

__all__ = [
    "MDEQ",
    "BarlowTwins",
    "CouplingTransformer",
    "DEQTransformer",
    "DEQTrellisNet",
    "KernelRidge",
    "KernelTransformer",
    "LogisticRegression",
    "MulT",
    "NonlinearLeastSquares",
    "ResNet",
    "Transformer",
    "TrellisNet",
]
