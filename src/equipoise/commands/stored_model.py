"""What commands that use a stored model share: settings, checkpoint, device; and models of text."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_type_hints

from equipoise.commands.arguments import Parser
from equipoise.config.about import about
from equipoise.config.recompose import trusted_packages
from equipoise.config.signatures import as_packages, check_targets
from equipoise.config.stored import Stored, read_checkpoint, stored_run
from equipoise.errors import UserError, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from equipoise.data.text.vocabulary import Vocabulary

CHECKPOINTS = ("best.ckpt", "last.ckpt")
COMMANDS = {
    "couplings": "predict", "range_estimate": "query", "token_logits": "generate",
    "translation_logits": "translate",
}  # fmt: skip
"""By what the task of a checkpoint wants of its model, the command that uses it."""


@dataclass
class StoredRequest:
    """The settings that every such command has; a command adds its own."""

    ckpt_path: str = ""
    device: str | None = None
    trust: tuple[str, ...] = ()


class StoredRun(NamedTuple):
    """The content of a checkpoint, and the run that it tells of."""

    content: dict[str, Any]
    run: Stored

    @property
    def task(self) -> str:
        """The choice of the task."""
        return self.run.choices.get("task", "")

    @property
    def command(self) -> str | None:
        """The command that such a checkpoint is for, None where there is none but evaluate."""
        return COMMANDS.get(about(self.run.config["task"], "wants") or "")

    @property
    def state(self) -> dict[str, Any]:
        """What the objective keeps beside the weights."""
        return self.content["state_dict"].get("_extra_state") or {}


class StoredModel(NamedTuple):
    """A model with the weights of its checkpoint, and the settings of the task it was made for."""

    model: nn.Module
    vocabulary: Vocabulary
    task: dict[str, Any]
    device: torch.device


Request = TypeVar("Request", bound=StoredRequest)


def read_settings(
    command: str,
    request: Request,
    words: Sequence[str],
    description: str,
    settings: str,
    files: str = "",
) -> Request:
    """Put key=value words into the request, the values taken as they stand.

    description, settings: what --help shows before and after the usage. files: what stands there
    for words that the command reads itself. Raises UserError for an
    unknown key, a value of the wrong kind, or without a checkpoint.
    """
    kinds = get_type_hints(type(request))
    for argument in _parser(command, description, settings, files).parsed(words).settings:
        key, equals, value = argument.partition("=")
        if key not in kinds or not (equals or kinds[key] is bool):
            hint = nearest(key, kinds) or f"; see python -m equipoise {command} --help"
            raise UserError(f"{command} takes no '{argument}'{hint}")
        try:
            setattr(request, key, READERS[kinds[key]](value))
        except ValueError as error:
            raise UserError(f"{command}: {key}={value} is not of the default's type") from error
    if not request.ckpt_path:
        raise UserError("a checkpoint is needed: ckpt_path=runs/<...>/checkpoints/best.ckpt")
    return request


def _parser(command: str, description: str, settings: str, files: str) -> Parser:
    operands = f"{files} [setting=value ...]".lstrip()
    parser = Parser(
        f"python -m equipoise {command}", description,
        usage=f"%(prog)s ckpt_path=<run>/checkpoints/best.ckpt {operands}",
        epilog=settings, formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("settings", nargs="*", metavar="setting=value", help="see below")
    return parser


def truth(value: str) -> bool:
    """The truth value of "true" or "false"; "" is true."""
    if value.lower() not in ("", "true", "false"):
        raise ValueError(value)
    return value.lower() != "false"


def packages(value: str) -> tuple[str, ...]:
    """The names in "[a,b]" or "a,b"."""
    return as_packages([name.strip() for name in value.strip("[]").split(",") if name.strip()])


READERS: Mapping[Any, Callable[[str], Any]] = {
    str: str, int: int, float: float, bool: truth, tuple[str, ...]: packages,
    str | None: str, int | None: int, float | None: float,
}  # fmt: skip
"""By the type of a setting, what reads its value; it raises ValueError for another one."""


def read_run(path: str) -> StoredRun:
    """The checkpoint at a path, or the best or else the last one of a run's folder.

    Raises UserError where there is none that can be used.
    """
    file = checkpoint_of(Path(path))
    content = read_checkpoint(file)
    return StoredRun(content, stored_run(content, file))


def checkpoint_of(path: Path) -> Path:
    """The checkpoint of a run's folder; a file is one itself. Raises UserError without one."""
    if not path.is_dir():
        return path
    files = [path / "checkpoints" / name for name in CHECKPOINTS]
    existing = next((file for file in files if file.is_file()), None)
    if existing is None:
        wanted = " or ".join(f"checkpoints/{name}" for name in CHECKPOINTS)
        raise UserError(f"the folder {path} holds no {wanted}: give a run's folder or checkpoint")
    return existing


Module = TypeVar("Module", bound="nn.Module")


def restored(
    build: Callable[[dict[str, Any], Mapping[str, Any], Path], Module],
    checkpoint: StoredRun,
    request: StoredRequest,
) -> tuple[Module, torch.device]:
    """What `build` makes of configuration and weights, ready for evaluation on the device.

    Raises UserError where the device does not exist, or the checkpoint names code that is not to be
    trusted.
    """
    from equipoise.models.generation import usable_device
    from equipoise.running.messages import quiet_lightning

    quiet_lightning()
    content, run = checkpoint
    check_targets(run.config, trusted_packages(run, request.trust))
    try:
        device = usable_device(request.device)
    except ValueError as error:
        raise UserError(str(error)) from error
    module = build(run.config, content["state_dict"], run.path)
    return module.to(device).eval(), device


def read_model(command: str, request: StoredRequest) -> StoredModel:
    """The model of a checkpoint of text with its weights, and its vocabulary.

    Raises UserError where the checkpoint is of another kind of task than the command is for, naming
    the command that it is for.
    """
    checkpoint = read_run(request.ckpt_path)
    check_kind(command, checkpoint)
    from equipoise.data.text.vocabulary import vocabulary_from_state
    from equipoise.running.build import restored_model

    model, device = restored(restored_model, checkpoint, request)
    vocabulary = vocabulary_from_state(checkpoint.state["vocabulary"])
    return StoredModel(model, vocabulary, checkpoint.run.config["task"], device)


def check_kind(command: str, checkpoint: StoredRun) -> None:
    """Raise UserError where the command is not for the checkpoint, or that has no vocabulary."""
    name = f"the checkpoint {checkpoint.run.path} of task={checkpoint.task}"
    if not checkpoint.state.get("vocabulary"):
        raise UserError(
            f"{name} has no vocabulary: {command} needs a checkpoint of a {KINDS[command]} task"
        )
    if checkpoint.command not in (None, command):
        raise UserError(
            f"{name} is not for {command}, which needs one of a {KINDS[command]} task: use "
            f"python -m equipoise {checkpoint.command}"
        )


KINDS = {"generate": "language-modelling", "translate": "translation"}
