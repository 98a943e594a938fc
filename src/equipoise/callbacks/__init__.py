"""Callbacks: what happens around the training loop. Start with `curve_rows`; most build on it."""

from equipoise.callbacks.checkpointing import BestCheckpoint, RunCheckpoint
from equipoise.callbacks.contraction_budget import ContractionBudget
from equipoise.callbacks.convergence_monitor import ConvergenceMonitor
from equipoise.callbacks.divergence_guard import DivergenceGuard, TrainingDiverged
from equipoise.callbacks.early_stopping import EarlyStopping
from equipoise.callbacks.graceful_interrupt import GracefulInterrupt
from equipoise.callbacks.gradient_fidelity import GradientFidelity
from equipoise.callbacks.gradient_schedule import GradientSchedule, Phase
from equipoise.callbacks.learning_rate_finder import LearningRateFinder
from equipoise.callbacks.loggers import (
    CurveLogger,
    CurveMLFlowLogger,
    CurveTensorBoardLogger,
    CurveWandbLogger,
)
from equipoise.callbacks.normalization_warmup import NormalizationWarmup
from equipoise.callbacks.progress import Progress
from equipoise.callbacks.run_report import RunReport
from equipoise.callbacks.segment_start import SegmentStart
from equipoise.callbacks.step_profiler import StepProfiler
from equipoise.callbacks.stochastic_weight_averaging import StochasticWeightAveraging
from equipoise.callbacks.stop_after import StopAfter
from equipoise.callbacks.timed_checkpoint import TimedCheckpoint
from equipoise.callbacks.training_curve import LearningRate, TrainingCurve
from equipoise.callbacks.trial_pruning import TrialPruning
from equipoise.callbacks.warm_start import WarmStart
from equipoise.callbacks.weight_averaging import ExponentialMovingAverage

__all__ = [
    "BestCheckpoint",
    "ContractionBudget",
    "ConvergenceMonitor",
    "CurveLogger",
    "CurveMLFlowLogger",
    "CurveTensorBoardLogger",
    "CurveWandbLogger",
    "DivergenceGuard",
    "EarlyStopping",
    "ExponentialMovingAverage",
    "GracefulInterrupt",
    "GradientFidelity",
    "GradientSchedule",
    "LearningRate",
    "LearningRateFinder",
    "NormalizationWarmup",
    "Phase",
    "Progress",
    "RunCheckpoint",
    "RunReport",
    "SegmentStart",
    "StepProfiler",
    "StochasticWeightAveraging",
    "StopAfter",
    "TimedCheckpoint",
    "TrainingCurve",
    "TrainingDiverged",
    "TrialPruning",
    "WarmStart",
]
