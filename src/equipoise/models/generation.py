"""Generating token by token, each at the cost of one position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from equipoise.equilibrium import Equilibrium
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.equilibrium.state import State, parts


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen from its log probabilities.

    temperature divides them; top_p keeps the fewest most likely tokens whose probabilities sum to
    at least top_p; greedy takes the most likely token. seed: of the draws.
    Source: top_p is nucleus sampling, Holtzman et al. 2020 (arXiv 1904.09751).
    """

    temperature: float = 1.0
    top_p: float = 0.95
    greedy: bool = False
    seed: int = 0

    def choose(self, log_probabilities: Tensor, generator: torch.Generator) -> int:
        """A token, given its log probabilities (V,)."""
        if self.greedy:
            return int(log_probabilities.argmax())
        probabilities = torch.softmax(log_probabilities.float().cpu() / self.temperature, dim=0)
        likely = nucleus(probabilities, self.top_p)
        return int(torch.multinomial(likely, 1, generator=generator))


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Set to 0 all but the smallest set of the largest of (V,) that sums to at least top_p."""
    ordered, places = probabilities.sort(descending=True)
    before = ordered.cumsum(0) - ordered
    likely = torch.where(before < top_p, ordered, 0.0)
    return torch.zeros_like(probabilities).scatter(0, places, likely)


class WarmStart:
    """Starts each solve of a layer where its latest one of the same shape ended.

    In generation every solve concerns one new position, so it starts at the equilibrium of the
    previous position. `evaluations` counts those of f since the layer was first watched.
    """

    def __init__(self, layer: Equilibrium) -> None:
        self.latest: State | None = None
        self.evaluations = 0
        if not layer.gradient.own_iteration:  # its result would depend on where it starts
            layer.start = self
        layer.register_forward_hook(self._keep)

    def __call__(self, z0: State) -> State:
        """The state to start from."""
        if self.latest is None or not same_shapes(self.latest, z0):
            return z0
        return self.latest

    def _keep(self, layer: nn.Module, inputs: Any, state: State) -> None:
        self.latest = state
        report = cast(Equilibrium, layer).report
        self.evaluations += 0 if report is None else report.nfe


class Generator:
    """Continues tokens with a model that keeps what it has read in its memory.

    model: `(tokens (1, T), memory) -> hidden (1, T, D), memory`, with `log_probabilities(hidden)`.
    A step reads one token; the equilibria and injections of the `context` tokens before it come
    from the memory. device: None uses a GPU if there is one.
    """

    def __init__(
        self, model: nn.Module, sampling: Sampling, *, context: int, device: str | None = None
    ) -> None:
        self.device = usable_device(device)
        self.model: Any = model.to(self.device).eval()
        if hasattr(model, "memory_length"):
            cast(Any, model).memory_length = context
        self.sampling = sampling
        self.context = context
        self.starts = [WarmStart(layer) for layer in equilibrium_layers(model).values()]
        self.steps = 0
        self.memory: tuple[Tensor, ...] | None = None

    @property
    def evaluations(self) -> float | None:
        """Evaluations of f for each generated token; None for a model without equilibrium."""
        if not self.starts:
            return None
        return sum(start.evaluations for start in self.starts) / max(self.steps, 1)

    def continuation(self, prompt: Sequence[int], length: int) -> Iterator[int]:
        """Yield `length` tokens that follow the prompt of at least one token."""
        generator = torch.Generator().manual_seed(self.sampling.seed)
        self.memory, self.steps = None, 0
        for begin in range(0, len(prompt), self.context):
            scores = self._read(prompt[begin : begin + self.context])
        for start in self.starts:
            start.evaluations = 0
        for step in range(length):
            token = self.sampling.choose(scores, generator)
            yield token
            if step + 1 < length:
                scores = self._read([token])
                self.steps += 1

    @torch.inference_mode()
    def _read(self, tokens: Sequence[int]) -> Tensor:
        """Read some tokens and return the log probabilities (V,) of the next one."""
        output = self.model(torch.tensor([list(tokens)], device=self.device), self.memory)
        self.memory = output.memory
        scores: Tensor = self.model.log_probabilities(output.hidden[0, -1])
        return scores


def same_shapes(one: State, other: State) -> bool:
    """Whether two states have the same parts."""
    return [part.shape for part in parts(one)] == [part.shape for part in parts(other)]


def usable_device(name: str | None) -> torch.device:
    """The device. Raises ValueError if it does not exist."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if name != "meta":  # its tensors have no values
            return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise _no_device(name) from error
    raise _no_device(name)


def _no_device(name: str) -> ValueError:
    return ValueError(
        f"there is no device {name} on this machine; give cpu or cuda, or leave it out"
    )
