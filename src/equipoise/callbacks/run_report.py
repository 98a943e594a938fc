"""The callback that draws the report of a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from equipoise.callbacks.lightning_overhead import Observer
from equipoise.equilibrium.layer import equilibrium_layers
from equipoise.report.curves import NAME, CurveFile, Trace, TraceRecorder, draw_trace, plots
from equipoise.report.lines import Plot
from equipoise.report.page import Picture, page
from equipoise.report.whole import reason, write_whole


@runtime_checkable
class Pictured(Protocol):
    """A task that draws pictures of its last test."""

    def pictures(self, folder: Path) -> Sequence[Picture]:
        """Write PNG files into the folder and say what they show; nothing without a test."""
        ...


class RunReport(Observer):
    """Write pictures of the curve and an `index.html` that shows them into `dirpath`.

    The curves are read from the metrics.csv of the run's CSVLogger. The plot of the residual at
    each iteration shows the first test batch, whose solves keep their trace. A task that is
    `Pictured` adds pictures of its own. The report is written at the end of fit and test from what
    the trainer knows; `write` then repeats this with the whole metrics.json dictionary. A picture
    whose data has not changed is not drawn again. A report that cannot be written does not end the
    run: a warning and `lost` say what is missing.
    """

    def __init__(self, dirpath: str | Path) -> None:
        self.dirpath = Path(dirpath)
        self.curve_path: Path | None = None
        self.elsewhere: list[str] = []
        self.tolerance: float | None = None
        self.stop = ""
        self.recorder: TraceRecorder | None = None
        self.traces: list[Trace] = []
        self.of_task: list[Picture] = []
        self.added: list[Picture] = []
        self.drawn: dict[str, Plot | Trace] = {}
        self.loggers: list[Logger] = []
        self.lost = ""
        self.is_first_process = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out where the curve is kept and which tolerance the solvers have."""
        self.is_first_process = trainer.is_global_zero
        self.loggers = list(trainer.loggers)
        self.elsewhere = [_place(logger) for logger in trainer.loggers]
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                self.curve_path = Path(logger.log_dir) / "metrics.csv"
        for layer in equilibrium_layers(pl_module).values():
            self.tolerance, self.stop = layer.solver.tol, layer.solver.stop

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start to record the solves of the first batch."""
        if batch_idx == 0 and dataloader_idx == 0:
            self.recorder = TraceRecorder(equilibrium_layers(pl_module))
            self.recorder.start()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the recording and restore the solvers."""
        if self.recorder is not None:
            self.traces = self.recorder.stop()
            self.recorder = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restore the solvers if a recording was cut short."""
        if self.recorder is not None:
            self.recorder.restore()
            self.recorder = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report of the training."""
        self._write(_metrics_of(trainer, pl_module))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report, now with the test."""
        if self.is_first_process and isinstance(pl_module, Pictured):
            with self._telling():
                self.of_task = list(pl_module.pictures(self.dirpath))
        self._write(_metrics_of(trainer, pl_module))

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Write the report of a run at its end, and hand its pictures to loggers that show them.

        metrics: the dictionary of metrics.json. Only the first process writes. Runs without
        equilibrium layers have no pictures of solves; without a CSVLogger the page says where the
        curves are.
        """
        pictures = self._write(metrics)
        for logger in self.loggers:
            log_pictures(logger, pictures, self.dirpath, metrics.get("steps"))

    def _write(self, metrics: Mapping[str, Any]) -> list[Picture]:
        """Write the report with what is known so far, and return its pictures."""
        pictures = list[Picture]()
        if not self.is_first_process:
            return pictures
        with self._telling():
            self.dirpath.mkdir(parents=True, exist_ok=True)
            pictures = [*self.added, *self.of_task, *self._draw_curves(), *self._draw_traces()]
            file = self.dirpath.parent / "config.yaml"
            configuration = file.read_text(encoding="utf-8") if file.is_file() else ""
            html = page(metrics, pictures, self.dirpath, self._note(), configuration)
            write_whole(self.dirpath / "index.html", html)
        return pictures

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Warn if part of the report cannot be written, and let the run continue."""
        try:
            yield
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            self.lost = f"not all of {self.dirpath} could be written: {reason(error)}{where}"
            warnings.warn(
                f"{self.lost}; the results are in metrics.json all the same", stacklevel=2
            )

    def add(self, picture: Picture) -> None:
        """Have the page show a picture that another callback has drawn into the folder."""
        if picture not in self.added:
            self.added.append(picture)

    def _draw_curves(self) -> list[Picture]:
        pictures = []
        for plot in plots(CurveFile(self.curve_path), self.tolerance, self.stop):
            if self.drawn.get(plot.name) != plot:
                plot.draw(self.dirpath)
                self.drawn[plot.name] = plot
            pictures.append(Picture(f"{plot.name}.png", plot.caption))
        return pictures

    def _draw_traces(self) -> list[Picture]:
        pictures = []
        for number, trace in enumerate(self.traces):
            name = NAME if number == 0 else f"{NAME}_{number + 1}"
            if self.drawn.get(name) is not trace:
                draw_trace(trace, self.dirpath / f"{name}.png")
                self.drawn[name] = trace
            caption = f"Residual after each evaluation, first test samples, layer {trace.layer}."
            pictures.append(Picture(f"{name}.png", caption))
        return pictures

    def _note(self) -> str:
        if self.curve_path is not None:
            return ""
        if not self.elsewhere:
            return "No logger was active, so no curve of this run was kept."
        return f"The curves of this run are kept by {', '.join(self.elsewhere)}."


def log_pictures(
    logger: Logger, pictures: Sequence[Picture], folder: Path, step: int | None = None
) -> None:
    """Show PNG files of a folder, each once, in TensorBoard or any logger that has `log_image`."""
    for picture in {picture.file: picture for picture in pictures}.values():
        key, file = f"report/{Path(picture.file).stem}", folder / picture.file
        if hasattr(logger, "log_image"):
            logger.log_image(key, [str(file)], step=step, caption=[picture.caption])
        elif isinstance(logger, TensorBoardLogger):
            from matplotlib.image import imread

            logger.experiment.add_image(key, imread(file), step, dataformats="HWC")
            logger.experiment.flush()


def _place(logger: Logger) -> str:
    """Name a logger and where it writes."""
    where = logger.log_dir or logger.save_dir
    name = type(logger).__name__
    return f"{name} in {where}" if where else name


def _metrics_of(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """The part of metrics.json that the trainer alone can supply."""
    metrics: dict[str, Any] = {
        "model": type(getattr(module, "model", module)).__name__,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
    }
    for stage in ("test", "val"):
        metrics[stage] = {
            name.removeprefix(f"{stage}/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{stage}/")
        }
    return metrics
