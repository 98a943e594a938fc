"""MDEQ's published configurations, as arguments of our classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import Tensor

from equipoise.interop.mdeq.weights import primary
from equipoise.interop.published_configuration import (
    DoesNotFit,
    PublishedConfiguration,
    setting_lines,
)
from equipoise.interop.published_solvers import (
    SOLVERS,
    STOPS,
    SolverChoice,
    exact_lines,
    layer_lines,
    solver_choice,
    translated,
)

SECTIONS = ("MODEL.", "EXTRA.", "FULL_STAGE.")
"""Sections of the published files whose keys are unambiguous, so that they may stand alone."""
TASKS = ("cifar10", "imagenet", "cityscapes")
TASK_OF_CLASSES = {10: "cifar10", 1000: "imagenet"}


class MDEQConfiguration(PublishedConfiguration):
    """A published configuration of MDEQ, read by its own keys, however deep they lie.

    Nested as the published file, flat, or with dotted keys; MODEL.EXTRA.FULL_STAGE.NUM_CHANNELS may
    be called NUM_CHANNELS, while keys of other sections keep them: TRAIN.PRETRAIN_STEPS.
    """

    example = "NUM_CHANNELS"

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Read `config`; raises DoesNotFit if it is not a mapping."""
        super().__init__(config, "MDEQ")

    def leaves(self, node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield every value under its key, with the sections that the key needs."""
        for key, value in node.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping):
                yield from self.leaves(value, f"{name}.")
                continue
            for section in SECTIONS:
                name = name.removeprefix(section)
            yield name, value


def architecture(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of our MDEQ, except its equilibrium and the image's size.

    The weights decide if versions of the code differ without a key that says so: which head there
    is, which convolutions are normalised, and that the norms of 2020 are always affine. Raises
    DoesNotFit if a required entry is missing, or the number of branches is wrong.
    """
    published = MDEQConfiguration(config)
    channels = list(published.need("NUM_CHANNELS"))
    branches = len(channels)
    if published.get("NUM_BRANCHES", branches) != branches:
        raise DoesNotFit(
            f"NUM_CHANNELS has {branches} entries for {published.need('NUM_BRANCHES')} NUM_BRANCHES"
        )
    return {
        **_heads(published, weights),
        "channels": channels,
        "blocks": list(published.get("NUM_BLOCKS", [1] * branches)),
        "big_kernels": list(published.get("BIG_KERNELS", [0] * branches)),
        "expansion": published.get("EXPANSION_FACTOR", 5),
        "groups": published.get("NUM_GROUPS", 4),
        "stem_stride": 2 ** published.get("DOWNSAMPLE_TIMES", 2),
        "block_affine": _affine("BLOCK", published, weights, ".gn1."),
        "fusion_affine": _affine("FUSE", published, weights, ".fuse_layers.", "gnorm."),
        "post_affine": _affine("POST", published, weights, ".post_fuse_layers.", "gnorm."),
        "weight_norm": _weight_norm(published, weights),
        "dropout": published.get("DROPOUT", 0.0),
    }


def _heads(published: MDEQConfiguration, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if _any(weights, "classifier.") or _any(weights, "final_layer."):
        arguments["classes"] = published.get("NUM_CLASSES", 1000)
        arguments["head_channels"] = list(published.need("HEAD_CHANNELS"))
        arguments["final_channels"] = published.need("FINAL_CHANSIZE")
    if _any(weights, "last_layer."):
        last = weights.get("last_layer.3.weight")
        counted = 19 if last is None else len(last)
        arguments["mask_classes"] = published.get("DATASET.NUM_CLASSES", counted)
        arguments["final_kernel"] = published.get("FINAL_CONV_KERNEL", 1)
        arguments["batch_norm_momentum"] = 0.01
    if not arguments:
        raise DoesNotFit(
            "the weights have no head (classifier.* for classes, last_layer.* for masks), so they "
            "are not a published MDEQ's"
        )
    return arguments


def _affine(
    part: str, published: MDEQConfiguration, weights: Mapping[str, Tensor], *names: str
) -> bool:
    """Whether the norms are affine: if the configuration says so, or the weights are there."""
    stated: bool = published.get(f"{part}_GN_AFFINE", False)
    return stated or _any(weights, *names)


def _weight_norm(published: MDEQConfiguration, weights: Mapping[str, Tensor]) -> str:
    if _any(weights, ".fuse_layers.", "weight_g"):
        return "all"
    if _any(weights, ".post_fuse_layers.", "weight_g"):
        return "published"
    if _any(weights, ".branches.", "weight_g"):
        # A single branch has nothing after it to normalise.
        return "blocks" if _any(weights, ".post_fuse_layers.") else "published"
    return "published" if published.get("WNORM", False) else "none"


def _any(weights: Mapping[str, Tensor], *parts: str) -> bool:
    return any(all(part in name for part in parts) for name in weights)


def forward_solver(config: MDEQConfiguration) -> SolverChoice:
    """The solver of f: F_SOLVER with the budget F_THRES, stopped by STOP_MODE."""
    return _choice(config, "F", config.get("DEQ.F_THRES", config.get("F_THRES", 30)))


def backward_solver(config: MDEQConfiguration) -> SolverChoice:
    """The solver of the adjoint system: B_SOLVER with the budget B_THRES.

    The code of 2020 uses the forward threshold, whatever its B_THRES says.
    """
    return _choice(config, "B", config.get("DEQ.B_THRES", config.get("F_THRES", 40)))


def phantom_steps(config: MDEQConfiguration) -> tuple[int, float] | None:
    """Steps and damping of the phantom gradient, if the configuration requests it."""
    if "TRAIN.PG_STEPS" not in config:
        return None
    # The published script turns 0 into 5.
    return config.need("TRAIN.PG_STEPS") or 5, config.get("TRAIN.TAU", 0.5)


def _choice(
    config: MDEQConfiguration, direction: Literal["F", "B"], threshold: int
) -> SolverChoice:
    key = f"{direction}_SOLVER"
    return solver_choice(
        translated(key, config.get(f"DEQ.{key}", "broyden"), SOLVERS),
        translated("STOP_MODE", config.get("DEQ.STOP_MODE", "abs"), STOPS),
        threshold,
    )


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Group choices and settings for task, model, solver and gradient.

    The task is the configuration's dataset, or follows from the head. Raises DoesNotFit if no task
    fits.
    """
    published = MDEQConfiguration(config)
    arguments = architecture(config, primary(state_dict))
    counts = {name: arguments.pop(name, None) for name in ("classes", "mask_classes")}
    return [
        f"task={_task(published, counts)}",
        "model=mdeq",
        *setting_lines("task", {name: n for name, n in counts.items() if n is not None}),
        *setting_lines("model", arguments),
        *layer_lines(forward_solver(published), _gradient_lines(published)),
    ]


def _task(published: MDEQConfiguration, counts: Mapping[str, int | None]) -> str:
    dataset = str(published.get("DATASET.DATASET", "")).lower()
    if dataset in TASKS:
        return dataset
    if counts["mask_classes"] is not None:
        return "cityscapes"
    if counts["classes"] in TASK_OF_CLASSES:
        return TASK_OF_CLASSES[counts["classes"]]
    raise DoesNotFit(
        f"no task fits {counts['classes']} classes: set DATASET.DATASET to {', '.join(TASKS)}"
    )


def _gradient_lines(published: MDEQConfiguration) -> list[str]:
    phantom = phantom_steps(published)
    if phantom:
        steps, damping = phantom
        return [
            "gradient=phantom",
            *setting_lines("gradient", {"steps": steps, "damping": damping}),
        ]
    return exact_lines(backward_solver(published))
