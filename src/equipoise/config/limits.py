"""The limits of each numeric setting: one table, for our classes and those of others.

A signature says that a setting is a number; this table says which numbers make sense. The upper
limits are generous, but no machine could compute or store what lies above them. The table is by the
setting's name, or by `<class>.<name>` where a class gives the name its own meaning. The file of a
choice may state the limits of its own numbers under `about:` instead, and then those hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from equipoise.config.machine import cores


@dataclass(frozen=True)
class Limit:
    """From `least` to `most`; `above` and `below` say that the end itself is excluded."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, number: float) -> bool:
        """Whether a finite number lies within."""
        if (self.above and number == self.least) or (self.below and number == self.most):
            return False
        return self.least <= number <= self.most

    def described(self) -> str:
        """The limits in words."""
        least = f"above {self.least:,.12g}" if self.above else f"at least {self.least:,.12g}"
        most = f"below {self.most:,.12g}" if self.below else f"at most {self.most:,.12g}"
        ends = [] if math.isinf(self.least) else [least]
        ends += [] if math.isinf(self.most) else [most]
        return " and ".join(ends) or "a finite number"


FINITE = Limit()
POSITIVE = Limit(0, above=True)
NOT_NEGATIVE = Limit(0)
PART = Limit(0, 1)
SOME_PART = Limit(0, 1, above=True)
PART_LEFT_OUT = Limit(0, 1, below=True)  # a dropout probability, a held-out fraction of the data
BUDGET = Limit(1, 1_000_000)  # evaluations of f
COUNT = Limit(1, 1_000_000)
COUNT_OR_NONE = Limit(0, 1_000_000)
STEPS = Limit(0, 10**12)
ENDLESS = Limit(-1, 10**12)
WIDTH = Limit(1, 1_000_000)  # channels and the like
SAMPLES = Limit(1, 100_000_000)
PIXELS = Limit(1, 65_536)
SEED = Limit(0, 2**32 - 1)
PROCESSES = Limit(0, max(cores(), 16))  # 16 are the default of the views of photographs

LIMITS: dict[str, Limit] = {
    "seed": SEED,
    # equilibrium
    "jitter": COUNT_OR_NONE,
    "random_start": PART,
    # solver, gradient
    "max_steps": BUDGET,
    "tol": NOT_NEGATIVE,
    "check_every": BUDGET,
    "patience": BUDGET,
    "keep_states": BUDGET,
    "compact_at": SOME_PART,
    "memory": Limit(1, 10_000),
    "ridge": NOT_NEGATIVE,
    "mixing": Limit(0, 2, above=True),
    "damping": SOME_PART,
    "krylov_steps": BUDGET,
    "opa_every": BUDGET,
    "opa_steps": BUDGET,
    "steps": BUDGET,
    "horizon": COUNT,
    "mask_values": Limit(0, 65_535),
    "relaxation": Limit(0, 2, above=True, below=True),
    "min_cosine": Limit(-1, 1),
    "every": COUNT,
    "fallback_ratio": POSITIVE,
    "refine_steps": COUNT_OR_NONE,
    # regularizer
    "weight": NOT_NEGATIVE,
    "probes": Limit(1, 10_000),
    "probability": PART,
    "increment": FINITE,
    "increment_every": POSITIVE,
    "warmup": PART,
    "warmup_weight": NOT_NEGATIVE,
    "JacobianRegularizer.stop": PART,
    "ratio": SOME_PART,
    "states": Limit(1, 10_000),
    # optimizer, schedule
    "lr": NOT_NEGATIVE,
    "bias_lr": NOT_NEGATIVE,
    "betas": PART_LEFT_OUT,
    "eps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "momentum": NOT_NEGATIVE,
    "dampening": FINITE,
    "trust_coefficient": POSITIVE,
    "minimum": NOT_NEGATIVE,
    "final_factor": PART,
    "factor": Limit(0, 1, above=True, below=True),
    "Plateau.patience": COUNT_OR_NONE,
    "milestones": PART,
    "first_factor": PART,
    # callbacks, logger, anytime
    "decay": PART_LEFT_OUT,
    "ExponentialMovingAverage.start": PART_LEFT_OUT,
    "StochasticWeightAveraging.start": PART_LEFT_OUT,
    "annealing": PART,
    "StopAfter.steps": Limit(1, 10**12),
    "TimedCheckpoint.minutes": Limit(0, 10_000, above=True),
    "fraction": SOME_PART,
    "margin": Limit(0, 1_000),
    "least": BUDGET,
    "most": BUDGET,
    "memory_mb": Limit(0, 1e9, above=True),
    "min_delta": NOT_NEGATIVE,
    "stopping_threshold": FINITE,
    "divergence_threshold": FINITE,
    "min_lr": POSITIVE,
    "max_lr": POSITIVE,
    "num_training_steps": Limit(12, 1_000_000),
    "early_stop_threshold": Limit(1, above=True),
    "samples": COUNT,
    "refresh_rate": COUNT,
    "start": NOT_NEGATIVE,
    "save_top_k": Limit(-1, 1_000_000),
    "every_n_epochs": STEPS,
    "every_n_train_steps": STEPS,
    "flush_logs_every_n_steps": COUNT,
    "version": STEPS,
    "budgets": BUDGET,
    # task
    "batch_size": COUNT,
    "eval_batch_size": COUNT,
    "num_workers": PROCESSES,
    "cache_mb": Limit(0, 2**24),
    "val_fraction": PART_LEFT_OUT,
    "test_fraction": PART_LEFT_OUT,
    "train_size": SAMPLES,
    "val_size": SAMPLES,
    "test_size": SAMPLES,
    "train_scenes": SAMPLES,
    "canvas": PIXELS,
    "crop": PIXELS,
    "scales": Limit(0, 1_000, above=True),
    "min_crops_per_epoch": SAMPLES,
    "pad_multiple": PIXELS,
    "image_size": PIXELS,
    "image_channels": Limit(1, 4_096),
    "classes": COUNT,
    "mask_classes": Limit(2, 255),
    "class_weights": NOT_NEGATIVE,
    "label_smoothing": PART,
    "beam": Limit(1, 1_000),
    "length_penalty": Limit(0, 100),
    "label_weight": NOT_NEGATIVE,
    "mask_weight": NOT_NEGATIVE,
    "ohem_threshold": PART,
    "ohem_kept": SAMPLES,
    "length": COUNT,
    "segment_length": COUNT,
    "eval_segment_length": COUNT,
    "memory_length": COUNT_OR_NONE,
    "eval_memory_length": COUNT_OR_NONE,
    "vocabulary": Limit(1, 100_000_000),
    "word_limit": SAMPLES,
    "batch_tokens": Limit(2, 100_000_000),
    "max_length": Limit(2, 1_000_000),
    "largest": Limit(1, 10**15),
    "subwords": Limit(257, 1_000_000),
    "recalled": COUNT,
    "domain": Limit(2, 1_048_576),
    "limits": FINITE,
    "correlation": Limit(-1, 1),
    "users": SAMPLES,
    "queries": COUNT,
    "volumes": SOME_PART,
    "epsilon": Limit(0, 40, above=True),
    "repeats": Limit(1, 10_000),
    "rows": SAMPLES,
    "Tabular.columns": SAMPLES,
    "density": SOME_PART,
    "Tabular.features": SAMPLES,
    "training_rows": SAMPLES,
    "lengths": COUNT,
    "outputs": WIDTH,
    "overlap": PART_LEFT_OUT,
    "dropped": PART_LEFT_OUT,
    "noise": NOT_NEGATIVE,
    "bank_size": SAMPLES,
    "crop_size": PIXELS,
    "crop_scale": SOME_PART,
    "flip_probability": PART,
    "brightness": NOT_NEGATIVE,
    "contrast": NOT_NEGATIVE,
    "saturation": NOT_NEGATIVE,
    "hue": Limit(0, 0.5),
    "jitter_probability": PART,
    "gray_probability": PART,
    "blur_probability": PART,
    "blur_sigma": Limit(0, 1_000),
    "solarize_probability": PART,
    "zoom": Limit(0, 1_000, above=True),
    "aspect": Limit(1, 1_000),
    "rotation": Limit(0, 180),
    "shift": Limit(0, 1),
    # model
    "channels": WIDTH,
    "head_channels": WIDTH,
    "final_channels": WIDTH,
    "blocks": Limit(1, 1_000),
    "big_kernels": Limit(0, 2),
    "expansion": Limit(0, 1_000, above=True),
    "groups": Limit(2, 1_000_000),
    "stem_stride": PIXELS,
    "final_kernel": Limit(1, 3),
    "batch_norm_momentum": PART,
    "dropout": PART_LEFT_OUT,
    "attention_dropout": PART_LEFT_OUT,
    "input_dropout": PART_LEFT_OUT,
    "hidden_dropout": PART_LEFT_OUT,
    "output_dropout": PART_LEFT_OUT,
    "relu_dropout": PART_LEFT_OUT,
    "residual_dropout": PART_LEFT_OUT,
    "embedding_dropout": PART_LEFT_OUT,
    "kernel": Limit(1, 1000),
    "weight_drop": PART_LEFT_OUT,
    "width": WIDTH,
    "heads": WIDTH,
    "inner_width": WIDTH,
    "embedding_width": WIDTH,
    "hidden_width": WIDTH,
    "output_width": WIDTH,
    "divisor": WIDTH,
    "cutoffs": Limit(1, 100_000_000),
    "window": COUNT,
    "initializer": WIDTH,
    "initial_std": POSITIVE,
    "initial_range": POSITIVE,
    "layers": Limit(1, 10_000),
    "encoder_layers": Limit(0, 10_000),
    "radius": COUNT,
    "features": WIDTH,
    "levels": Limit(1, 10_000),
    "dilations": COUNT,
    "auxiliary_every": COUNT,
    "auxiliary_weight": NOT_NEGATIVE,
    "branching": Limit(2, 65_535),
    "theta_scale": NOT_NEGATIVE,
    "alpha1": POSITIVE,
    "alpha2": POSITIVE,
    "tolerance": NOT_NEGATIVE,
    "max_iterations": Limit(1, 10**9),
    # self-supervised learning
    "projector": Limit(1, 1_000_000),
    "off_diagonal_target": Limit(-1, 1),
    "off_diagonal_weight": NOT_NEGATIVE,
    "RedundancyReduction.scale": POSITIVE,
    "neighbours": COUNT,
    "SelfSupervised.temperature": Limit(0.0125),  # exp(1 / it) has to fit float32
    "probe_epochs": COUNT,
    "LinearProbe.epochs": COUNT,
    # couplings
    "split_seed": SEED,
    "max_pairs": COUNT,
    "rare": COUNT,
    "atom_types": COUNT,
    "pair_types": COUNT,
    "triplet_types": COUNT,
    "quad_types": COUNT,
    "contribution_weight": NOT_NEGATIVE,
    "inner": WIDTH,
    "head_width": WIDTH,
    "feature_width": WIDTH,
    "residual_blocks": Limit(0, 1_000),
    "head_dropout": PART_LEFT_OUT,
    # hyper-parameters
    "LogisticRegression.features": SAMPLES,
    "NonlinearLeastSquares.features": SAMPLES,
    "drawn_by": SEED,
    "first_tolerance": POSITIVE,
    "decrease_factor": SOME_PART,
    "growth": Limit(1, 1_000),
    # trainer
    "devices": Limit(-1, 1_000_000),
    "num_nodes": Limit(1, 1_000_000),
    "fast_dev_run": COUNT_OR_NONE,
    "max_epochs": ENDLESS,
    "min_epochs": STEPS,
    "Trainer.max_steps": ENDLESS,
    "min_steps": STEPS,
    "max_time": STEPS,
    "limit_train_batches": STEPS,
    "limit_val_batches": STEPS,
    "limit_test_batches": STEPS,
    "limit_predict_batches": STEPS,
    "overfit_batches": STEPS,
    "val_check_interval": Limit(0, 10**12, above=True),
    "check_val_every_n_epoch": COUNT,
    "num_sanity_val_steps": Limit(-1, 10**12),
    "log_every_n_steps": COUNT,
    "accumulate_grad_batches": COUNT,
    "gradient_clip_val": NOT_NEGATIVE,
    "precision": Limit(16, 64),
    "reload_dataloaders_every_n_epochs": STEPS,
}


PRODUCTS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("train_scenes", "canvas", "canvas"), 2),
    (("train_size",), 80),
    (("users", "repeats"), 8),
    (("rows", "columns", "density"), 24),
    (("batch_size", "length"), 32),
    (("batch_size", "segment_length"), 32),
    (("batch_size", "crop"), 24),
)
"""Settings of a task whose product counts the values in memory at once, and bytes for each."""

SEQUENCES = ("train_size", "val_size", "test_size")
MOST_TOKENS = 10**11
"""Most values of a generated split, `length` in each sequence; more would take years."""

PACKAGES = {"equipoise", "torch", "lightning"}


def limit_of(target: str, name: str) -> Limit:
    """The limit of an argument of the class at a dotted path.

    A class of another package may mean anything by a name: its numbers need only be finite.
    """
    if target.partition(".")[0] not in PACKAGES:
        return FINITE
    qualified = f"{target.rpartition('.')[2]}.{name}"
    return LIMITS.get(qualified) or LIMITS.get(name, FINITE)
