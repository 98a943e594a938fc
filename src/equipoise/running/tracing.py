"""From a program to a file that runs without Equipoise: by `torch.export`, or in ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equipoise.equilibrium.fixed_budget import TRACEABLE, Eliminating
from equipoise.errors import UserError
from equipoise.running.programs import Program

TORCH_EXPORT = "model.pt2"
ONNX = "model.onnx"
BATCH = "batch"
Run = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]
"""A written program: inputs by name -> outputs, on the CPU."""


def traced(program: Program) -> torch.export.ExportedProgram:
    """The graph of a program, for any number of samples.

    Raises UserError where the steps of a solver or a layer depend on values.
    """
    shapes = tuple({0: torch.export.Dim(BATCH)} for _ in program.inputs)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(
                program.module, tuple(program.inputs.values()), dynamic_shapes=shapes, strict=False
            )
    except (RuntimeError, TypeError, ValueError, torch._dynamo.exc.TorchDynamoException) as error:
        if "Constraints violated" in str(error):
            raise UserError(
                "this network takes only as many samples as it was traced with: in the code of "
                "the model, write x.shape[0] where it has len(x), and no number of samples itself"
            ) from error
        raise UserError(
            f"this network cannot be traced ({_line(error)}); solvers of which a graph can be made "
            f"are {', '.join(TRACEABLE)}: or export it with format=safetensors"
        ) from error


def write_torch_export(program: Program, file: Path) -> Run:
    """Write model.pt2, and return it as it is read again. Raises UserError as `traced` does."""
    graph = traced(program)
    for node in graph.graph.nodes:
        node.meta.pop("stack_trace", None)  # where in which file the line of each node stands
    with _quiet():
        torch.export.save(graph, file)
        module = torch.export.load(file).module()

    @torch.no_grad()
    def run(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return tuple(module(*(inputs[name] for name in program.inputs)))

    return run


def write_onnx(program: Program, file: Path) -> Run:
    """Write model.onnx, and return a callable that runs it in onnxruntime.

    Raises UserError where the extra `export` is not installed, an operation has no counterpart in
    ONNX, or the network cannot be traced.
    """
    try:
        import onnxruntime
        import onnxscript.optimizer
    except ImportError as error:
        raise UserError(
            f"format=onnx needs {error.name}: pip install 'equipoise[export]'"
        ) from error
    with Eliminating():
        graph = traced(program)
    try:
        with torch.no_grad(), _quiet():
            # Of the exporter's optimisation only this: its other rules take most of the time, and
            # onnxruntime has them too.
            written: Any = torch.onnx.export(
                graph, dynamo=True, optimize=False, verbose=False,
                input_names=list(program.inputs), output_names=list(program.outputs),
            )  # fmt: skip
            onnxscript.optimizer.fold_constants(written.model)
            onnxscript.optimizer.remove_unused_nodes(written.model)
            for node in written.model.graph:
                node.metadata_props.clear()  # where in which file the line of each node stands
            written.save(file)
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        raise UserError(
            f"this network has no counterpart in ONNX ({_line(cause)}): export it with "
            "format=torch_export or format=safetensors"
        ) from error
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    taken = {given.name for given in session.get_inputs()}

    def run(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        fed = {name: inputs[name].numpy() for name in program.inputs if name in taken}
        return tuple(torch.from_numpy(output) for output in session.run(None, fed))

    return run


def difference(program: Program, run: Run) -> float:
    """The largest difference of a written program's outputs from the network's own.

    It is measured on one more sample than was traced.
    """
    inputs = {name: torch.cat([value, value[:1].flip(1)]) for name, value in program.inputs.items()}
    pairs = zip(program.expected(inputs), run(inputs), strict=True)
    return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the exporters' messages about their own workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _line(error: BaseException) -> str:
    """The first line of another library's error."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
