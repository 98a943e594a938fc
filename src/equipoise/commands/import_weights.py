"""Turn published weights and their yaml file into a checkpoint for evaluate.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise import interop
from equipoise.commands.arguments import Parser
from equipoise.errors import UserError, read_yaml
from equipoise.report.whole import reason, whole

if TYPE_CHECKING:
    from torch import nn

    from equipoise.config.compose import Composition


def main(words: Sequence[str]) -> int:
    """Read, convert, write; returns 0. Raises UserError where one of the files is unusable."""
    arguments = _parser().parsed(words)
    weights_file, target = Path(arguments.weights), Path(arguments.out)
    family = interop.network_family_module(arguments.family)
    if target.exists():
        raise UserError(f"{target} already exists; choose a new file")
    config = read_configuration(Path(arguments.configuration))
    from equipoise.running.weight_files import read_weights

    weights = read_weights(weights_file)
    try:
        model = family.from_reference(config, weights)
    except (ValueError, TypeError) as error:
        raise UserError(f"{weights_file} and {arguments.configuration}: {error}") from error
    from equipoise.config.compose import compose

    composition = compose(family.overrides(config, weights))
    write(checkpoint(composition, model), target)
    print(f"{target}: {sum(p.numel() for p in model.parameters()):,} parameters")
    print(f"evaluate it with: python evaluate.py ckpt_path={target} task.path=<dataset>")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m equipoise import-weights", description=__doc__)
    parser.add_argument("family", help=f"which model: {', '.join(interop.NETWORKS)}")
    parser.add_argument(
        "weights", help="the published file: a state dict, or a checkpoint with one"
    )
    parser.add_argument("configuration", help="the published yaml file that it was trained with")
    parser.add_argument("out", help="the checkpoint to write, say mdeq.ckpt")
    return parser


def read_configuration(file: Path) -> Mapping[str, Any]:
    """The content of a yaml file. Raises UserError where it has none."""
    if not file.is_file():
        raise UserError(f"there is no configuration at {file}; give the published yaml file")
    try:
        content = read_yaml(file)
    except OSError as error:
        raise UserError(f"the configuration {file} cannot be read: {error.strerror}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"the configuration {file} is not a yaml mapping of keys and values")
    return content


def checkpoint(composition: Composition, model: nn.Module) -> dict[str, Any]:
    """What a run of `composition` would save, with the weights of `model`.

    It can be evaluated or given as `model.backbone_ckpt`, but has no optimiser state to resume.
    """
    import lightning

    from equipoise.config.compose import plain, storable
    from equipoise.running.build import build_task

    config = plain(composition.config, resolve=True)
    task = build_task(config)
    network: nn.Module = task.get_submodule("model")
    kept = {name for name in network.state_dict() if name.startswith("equilibrium.")}
    network.load_state_dict(model.state_dict() | {n: network.state_dict()[n] for n in kept})
    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": task.state_dict(),
        "config": storable(composition.config),
        "choices": composition.choices,
    }


def write(content: Mapping[str, Any], target: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    import torch

    try:
        with whole(target, "wb") as file:
            torch.save(dict(content), file)
    except (OSError, RuntimeError) as error:  # torch hides the former behind the latter
        raise UserError(f"{target} cannot be written: {reason(error)}") from error
