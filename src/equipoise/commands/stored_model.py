"""Shared by commands that use a stored model: settings, checkpoint, device; models of text."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_type_hints

from equipoise.commands.arguments import Parser
from equipoise.config.own_code import as_packages
from equipoise.errors import UserError, nearest
from equipoise.running.run_checkpoint import StoredRun, read_run, restored

if TYPE_CHECKING:
    import torch
    from torch import nn

    from equipoise.data.text.vocabulary import Vocabulary

COMMANDS = {
    "couplings": "predict", "range_estimate": "query", "token_logits": "generate",
    "translation_logits": "translate",
}  # fmt: skip
"""The command that uses a checkpoint, by what its task wants of the model."""


@dataclass
class StoredRequest:
    """The settings that all such commands have; each command adds its own."""

    ckpt_path: str = ""
    device: str | None = None
    trust: tuple[str, ...] = ()


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
    usage: str | None = None,
) -> Request:
    """Put key=value words into the request; values are taken literally.

    description, settings: the text of --help before and after the usage. files: the usage's text
    for words that the command reads itself. usage: replaces the usual one. Raises UserError
    for an unknown key, a value of the wrong type, or without a checkpoint.
    """
    kinds = get_type_hints(type(request))
    for argument in _parser(command, description, settings, files, usage).parsed(words).settings:
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


def _parser(command: str, description: str, settings: str, files: str, usage: str | None) -> Parser:
    operands = f"{files} [setting=value ...]".lstrip()
    parser = Parser(
        f"python -m equipoise {command}", description,
        usage=usage or f"%(prog)s ckpt_path=<run>/checkpoints/best.ckpt {operands}",
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
"""The reader of a value, by the setting's type; raises ValueError for an invalid value."""


def read_model(command: str, request: StoredRequest) -> StoredModel:
    """The model of a checkpoint of a text task with its weights, and its vocabulary.

    Raises UserError where the checkpoint's kind of task belongs to another command, and names
    that command.
    """
    checkpoint = read_run(request.ckpt_path)
    check_kind(command, checkpoint)
    from equipoise.data.text.vocabulary import vocabulary_from_state
    from equipoise.running.build import restored_model

    model, device = restored(restored_model, checkpoint, request.device, request.trust)
    vocabulary = vocabulary_from_state(checkpoint.state["vocabulary"])
    return StoredModel(model, vocabulary, checkpoint.run.config["task"], device)


def check_kind(command: str, checkpoint: StoredRun) -> None:
    """Raise UserError where the command does not fit the checkpoint, or there is no vocabulary."""
    name = f"the checkpoint {checkpoint.run.path} of task={checkpoint.task}"
    if not checkpoint.state.get("vocabulary"):
        raise UserError(
            f"{name} has no vocabulary: {command} needs a checkpoint of a {KINDS[command]} task"
        )
    if (other := COMMANDS.get(checkpoint.wants)) not in (None, command):
        raise UserError(
            f"{name} is not for {command}, which needs one of a {KINDS[command]} task: use "
            f"python -m equipoise {other}"
        )


KINDS = {"generate": "language-modelling", "translate": "translation"}
