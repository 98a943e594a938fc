"""The model card: what a published model is, what it reached, and how it is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

HUB_KINDS = {
    "logits": "image-classification",
    "mask_logits": "image-segmentation",
    "logits_and_mask_logits": "image-segmentation",
    "embeddings": "image-feature-extraction",
    "token_logits": "text-generation",
    "translation_logits": "translation",
    "inner_problem": "tabular-classification",
}
"""The hub's name for a kind of model, by what a task wants of its model."""
HUB_METRICS = {"miou": "mean_iou", "bleu": "bleu", "mae": "mae", "mse": "mse"}
"""The hub's names for our metrics, where they differ."""
UNKNOWN = "not stated"


@dataclass(frozen=True)
class Card:
    """What a card says about a model; None for what is not known.

    wants: the kind of its task. licence: of the weights, as the hub calls it; data_licence: of what
    they were trained on. metrics: the content of metrics.json. preprocessing: what is done to a
    picture, in words, and its numbers. program: an exported program's file, its inputs and outputs
    with their shapes, and its evaluations of f.
    """

    name: str
    task: str
    model: str
    wants: str
    parameters: int
    solver: Mapping[str, Any] | None = None
    licence: str | None = None
    data_licence: str | None = None
    data_path: str | None = None
    class_names: Sequence[str] = ()
    metrics: Mapping[str, Any] | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    program: ProgramCard | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ProgramCard:
    """What a card says about a program: its file, shapes by name, and the cost of a forward."""

    file: str
    inputs: Mapping[str, Sequence[int]]
    outputs: Sequence[str]
    evaluations: Mapping[str, int]
    difference: float


def model_card(card: Card) -> str:
    """README.md of the exported folder."""
    parts = [
        f"---\n{yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True)}---",
        f"# {card.name}",
        _what_it_is(card),
        f"## Figures\n\n{_figures(card.metrics)}",
        f"## Data\n\n{_data(card)}",
        f"## Use\n\n{_use(card)}",
        f"## Preprocessing\n\n{_preprocessing(card)}",
        f"## Versions\n\n{_table(card.versions, 'package', 'version')}",
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(card: Card) -> dict[str, Any]:
    """The part of a card that the hub reads: licence, kind, tags and figures."""
    kind = HUB_KINDS.get(card.wants)
    figures = _test(card.metrics)
    matter: dict[str, Any] = {"library_name": "equipoise"}
    if card.licence is not None:
        matter["license"] = card.licence
    if kind is not None:
        matter["pipeline_tag"] = kind
    matter["tags"] = list(dict.fromkeys(["equipoise", "deep-equilibrium", card.model, card.task]))
    if figures:
        matter["metrics"] = [HUB_METRICS.get(name, name) for name in figures]
        values = [
            {"type": HUB_METRICS.get(name, name), "value": value, "name": f"test {name}"}
            for name, value in figures.items()
        ]
        dataset = {"type": card.task, "name": card.task}
        task = {"type": kind or card.wants}
        results = [{"task": task, "dataset": dataset, "metrics": values}]
        matter["model-index"] = [{"name": card.name, "results": results}]
    return matter


def _test(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """The finite test metrics."""
    figures = (metrics or {}).get("test") or {}
    return {n: v for n, v in figures.items() if isinstance(v, int | float) and math.isfinite(v)}


def _what_it_is(card: Card) -> str:
    lines = [
        f"A network `{card.model}` with {card.parameters:,} parameters, trained on `{card.task}` "
        "with Equipoise."
    ]
    if card.solver is not None:
        lines.append(
            "Its output is read from an equilibrium z* = f(z*, x), which the solver "
            f"`{card.solver['name']}` seeks until the residual falls below {card.solver['tol']:g}, "
            f"in at most {card.solver['max_steps']} evaluations of f."
        )
    if card.class_names:
        lines.append(f"Its {len(card.class_names)} classes, in order: {_listed(card.class_names)}.")
    lines.append(f"Licence of the weights: {card.licence or UNKNOWN}.")
    return "\n\n".join(lines)


def _listed(names: Sequence[str], most: int = 50) -> str:
    more = len(names) - most
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return f"{shown} and {more} more, in `config.json`" if more > 0 else shown


def _figures(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "No metrics.json lay beside the checkpoint."
    rows: dict[str, Any] = {f"test {n}": v for n, v in _test(metrics).items()}
    stats = metrics.get("solver_stats") or {}
    rows |= {f"solver {name}": v for name, v in stats.items() if isinstance(v, int | float)}
    rows |= {key: metrics[key] for key in ("epochs", "steps", "seed") if key in metrics}
    return _table(rows, "of the run", "value")


def _data(card: Card) -> str:
    place = f" at `{card.data_path}`" if card.data_path else ""
    return f"`task={card.task}`{place}. Licence of the data: {card.data_licence or UNKNOWN}."


def _use(card: Card) -> str:
    program = card.program
    if program is None:
        return SAFETENSORS.strip()
    spent = ", ".join(f"{n} in `{name}`" for name, n in program.evaluations.items())
    budget = BUDGET.format(spent=spent) if spent else "It has no equilibrium layer."
    inputs = ", ".join(
        f"`{name}` ({', '.join(['batch', *map(str, shape[1:])])})"
        for name, shape in program.inputs.items()
    )
    outputs = ", ".join(f"`{name}`" for name in program.outputs)
    example = (ONNX if program.file.endswith(".onnx") else TORCH).format(
        file=program.file,
        inputs="\n".join(_example(n, s, program.file) for n, s in program.inputs.items()),
        given=", ".join(program.inputs),
        fed=", ".join(f'"{name}": {name}' for name in program.inputs),
        outputs=", ".join(program.outputs) + ",",
    )
    return (
        f"{example.strip()}\n\nIn: {inputs}, any number of samples. Out: {outputs}.\n\n{budget} "
        f"Its outputs differ by at most {program.difference:.1g} from those of the network with "
        "the same budget."
    )


def _example(name: str, shape: Sequence[int], file: str) -> str:
    sizes = ", ".join(["4", *map(str, shape[1:])])
    if name == "tokens":
        kind = "np.int64" if file.endswith(".onnx") else "torch.int64"
        return f"{name} = {kind.partition('.')[0]}.zeros(({sizes}), dtype={kind})"
    if file.endswith(".onnx"):
        return f"{name} = np.zeros(({sizes}), dtype=np.float32)"
    return f"{name} = torch.zeros({sizes})"


SAFETENSORS = """
```python
import equipoise

model = equipoise.load("<this folder>")
model.predict(["picture.png"])  # of a network for pictures
```

In plain PyTorch, the weights alone: those of the network begin with `model.`, and `config.json`
holds the configuration that it was built with.

```python
from safetensors.torch import load_file

weights = load_file("model.safetensors")
weights = {n.removeprefix("model."): w for n, w in weights.items() if n.startswith("model.")}
```
"""
TORCH = """
```python
import torch

program = torch.export.load("{file}").module()
{inputs}
{outputs} = program({given})
```
"""
ONNX = """
```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
{inputs}
{outputs} = session.run(None, {{{fed}}})
```
"""
BUDGET = """The program spends the same evaluations of f on every sample: {spent}. It looks at no
tolerance: it neither ends earlier where a sample has converged nor warns where one has not, and
returns of each sample the iterate of lowest residual."""


def _preprocessing(card: Card) -> str:
    if not card.preprocessing:
        return "None is described here; `equipoise.load` does what the run did."
    lines = [str(card.preprocessing["what"])] if "what" in card.preprocessing else []
    numbers = {name: v for name, v in card.preprocessing.items() if name != "what"}
    if numbers:
        lines += [NORMALISED, _table(numbers, "of it", "value")]
    return "\n\n".join(lines)


NORMALISED = """A pixel p from 0 to `white` becomes (p / white - mean) / std, channel by channel,
once the picture has the size that the network takes. `equipoise.load` of a folder written with
`format=safetensors` has all of it as `preprocess`."""


def _table(rows: Mapping[str, Any], first: str, second: str) -> str:
    lines = [f"| {first} | {second} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {_shown(value)} |" for name, value in rows.items())])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(entry) for entry in value)
    return " ".join(str(value).split())
