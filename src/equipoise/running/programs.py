"""The part of a trained network that becomes a program, by the kind of its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.equilibrium.fixed_budget import with_fixed_budget
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.errors import UserError

EXAMPLES = 2
"""Samples in the traced batch: a tracer takes a batch size of 1 for a constant."""
DEFAULT_LENGTH = 64
STREAMS = ("language", "audio", "vision")


class ImageProgram(nn.Module):
    """Images (B, C, H, W), as the network takes them, to the logits of each of its heads."""

    def __init__(self, network: Any, outputs: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, classes), mask logits (B, K, h, w), or both from one equilibrium."""
        if len(self.outputs) == 1:
            return (self.network(image),)
        state = self.network.state(image)
        return tuple(self.network.readout(state, output) for output in self.outputs)


class EncoderProgram(nn.Module):
    """Images (B, C, H, W) to the features (B, h) of an encoder, without the projector."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.encoder = network.encoder

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """The features."""
        return (self.encoder(image),)


class TokenProgram(nn.Module):
    """Tokens (B, T) to the log-probabilities (B, T, vocabulary) of the token after each.

    A segment has no memory of the text before it.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        """The log-probabilities."""
        return (self.network.log_probabilities(self.network(tokens).hidden),)


class StreamProgram(nn.Module):
    """Streams (B, T, features) of language, audio and vision to scores (B, outputs)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, language: Tensor, audio: Tensor, vision: Tensor) -> tuple[Tensor]:
        """The scores; a stream that the network does not read changes nothing."""
        streams = {"language": language, "audio": audio, "vision": vision}
        return (self.network(streams).outputs,)


@dataclass(frozen=True)
class Program:
    """The traced module with a fixed budget, its example inputs, and the names of its outputs.

    inputs: by name, in the order in which the module takes them, a row per sample. evaluations:
    the number for f in each equilibrium layer, by its name.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    evaluations: dict[str, int]

    @torch.no_grad()
    def expected(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The network's own output, with the same budget."""
        given: tuple[Tensor, ...] = self.module(*(inputs[name] for name in self.inputs))
        return given


def program_of(
    network: nn.Module, config: Mapping[str, Any], wants: str, steps: int | None
) -> Program:
    """The network as a program; wants: the output that its task needs, which is its kind.

    Raises UserError where its kind has no such program, or for steps below 1.
    """
    kinds = {
        "logits": _images, "mask_logits": _images, "logits_and_mask_logits": _images,
        "embeddings": _encoder, "token_logits": _tokens, "scores": _streams,
    }  # fmt: skip
    if wants not in kinds:
        raise UserError(
            f"a model that gives {wants.replace('_', ' ') or 'nothing'} cannot be one program: "
            "export it with format=safetensors; torch_export and onnx are for classification, "
            "segmentation, encoders of images, language models and streams"
        )
    try:
        fixed = with_fixed_budget(network, steps)
    except ValueError as error:
        raise UserError(f"export: {error}") from error
    module, inputs, outputs = kinds[wants](fixed, config, wants)
    program = Program(module.eval(), inputs, outputs, {})
    program.expected(inputs)
    layers = equilibrium_layers(fixed)
    spent = {name: layer.report.nfe for name, layer in layers.items() if layer.report is not None}
    return replace(program, evaluations=spent)


def solver_of(network: nn.Module) -> dict[str, Any] | None:
    """The solver of its equilibria: name, tolerance and budget; None without equilibria."""
    for layer in equilibrium_layers(network).values():
        if not layer.gradient.own_iteration:
            solver = layer.active_solver
            return {"name": solver.name, "tol": solver.tol, "max_steps": solver.max_steps}
    return None


Parts = tuple[nn.Module, dict[str, Tensor], tuple[str, ...]]
"""The module, its example inputs by name, the names of its outputs."""


def _images(network: nn.Module, config: Mapping[str, Any], wants: str) -> Parts:
    heads = {"logits_and_mask_logits": ("logits", "mask_logits")}
    outputs = heads.get(wants, (wants,))
    return ImageProgram(network, outputs), {"image": _image(config["task"])}, outputs


def _encoder(network: nn.Module, config: Mapping[str, Any], wants: str) -> Parts:
    return EncoderProgram(network), {"image": _image(config["task"])}, ("features",)


def _tokens(network: nn.Module, config: Mapping[str, Any], wants: str) -> Parts:
    task = config["task"]
    length = task.get("eval_segment_length") or task.get("segment_length") or DEFAULT_LENGTH
    tokens = torch.arange(EXAMPLES * length).view(EXAMPLES, length) % config["model"]["vocabulary"]
    return TokenProgram(network), {"tokens": tokens}, ("log_probabilities",)


def _streams(network: nn.Module, config: Mapping[str, Any], wants: str) -> Parts:
    task = config["task"]
    sizes = zip(STREAMS, task["lengths"], task["features"], strict=True)
    streams = {name: _numbers(length, features) for name, length, features in sizes}
    return StreamProgram(network), streams, ("scores",)


def _image(task: Mapping[str, Any]) -> Tensor:
    size = task["image_size"]
    sides = [size, size] if isinstance(size, int) else list(size)
    return _numbers(task["image_channels"], *sides)


def _numbers(*shape: int) -> Tensor:
    """Standard normal numbers, always the same; the program's random state does not change."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(EXAMPLES, *shape, generator=generator)
