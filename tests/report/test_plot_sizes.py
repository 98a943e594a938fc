"""Every picture of the report, drawn once: its text is legible at the size in which it is shown."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from equipoise import report
from equipoise.report import (
    anytime,
    attention,
    confusion,
    couplings,
    curves,
    embeddings,
    groups_of_runs,
    hyperparameters,
    plot,
    ranges,
    search,
    streams,
    submissions,
    sweep_picture,
    sweep_race,
)
from equipoise.report.learning_rates import RangeTest
from equipoise.report.lines import Plot, Span
from equipoise.report.page import CSS_PIXELS, STYLE
from equipoise.report.step_parts import StepTable
from equipoise.report.sweep_cells import Cell, SweepTable
from tests.report.test_anytime import POINTS as BUDGETS
from tests.report.test_attention import maps
from tests.report.test_search import TRIALS, found
from tests.report.test_step_parts import EQUILIBRIUM
from tests.report.test_streams import FULL, STREAMS, maps_of
from tests.report.test_sweep_race import RACE

LEAST = 11.0
"""CSS pixels."""
POINTS_OF_INCH = 72
FRAME = 2 * 12 + 2
"""Padding and border of a picture on the page."""
RANDOM = np.random.default_rng(0)
TREE = {
    "low": np.array([[0], [0], [4], [4], [6]]), "high": np.array([[8], [4], [8], [6], [8]]),
    "depth": np.array([0, 1, 1, 2, 2]), "value": np.array([1.0, 0.999, 0.001, 0.0009, 0.0001]),
}  # fmt: skip


class Shown(NamedTuple):
    """A picture as it was saved: by which function, how wide, and its texts with their sizes.

    cut: legends and titles that do not fit the picture.
    """

    drawn_by: tuple[str, str]
    width: float
    texts: dict[str, float]
    cut: list[str]


def survey(attributes: int, tree: Any) -> dict[str, Any]:
    bars = RANDOM.dirichlet(np.ones(8), attributes)
    return {
        "columns": ["age", "income", "height"][:attributes], "histograms": list(bars),
        "marginals": list(bars), "tree": tree, "truth": RANDOM.random(20),
        "grid": (np.outer(bars[0], bars[-1]),) * 2 if attributes == 2 else None,
        "answer": RANDOM.random(20), "standard_error": np.full(20, 0.01),
        "volume": np.repeat([0.25, 0.5], 10), "fixed": np.arange(20) % 2 == 0,
        "error": RANDOM.normal(size=(3, 20)) / 100,
    }  # fmt: skip


def of_curves(folder: Path) -> None:
    points = tuple((float(step), 10.0**-step) for step in range(1, 7))
    spans = (Span("unrolled", 1, 3), Span("phantom", 3, 6))
    Plot("few", "Loss", "", "loss", (("training", points),), spans, True, ("tolerance", 1e-3)).draw(
        folder
    )
    many = tuple((f"solver=anderson seed={k}", points) for k in range(20))
    Plot("many", "Loss", "", "loss", many).draw(folder)
    residuals = torch.logspace(0, -5, 20).unsqueeze(1).expand(20, 4)
    trace = curves.Trace("equilibrium", "anderson", "relative", 1e-3, residuals)
    curves.draw_trace(trace, folder / "trace.png")
    RangeTest([10.0**-k for k in range(16)], [1.0 / (k + 1) for k in range(16)]).draw(0.1, folder)
    anytime.draw(BUDGETS, "accuracy", "relative", folder)


def of_sweeps(folder: Path) -> None:
    rows, columns = ("task.seed", "solver.tol"), "solver"
    table = SweepTable("table", "loss", rows, columns, "min", {})
    lost = Cell(None, None, (("diverged", "because"),))
    cells = {
        ((task, tolerance), solver): lost if solver == "newton" else Cell(value, 0.01)
        for task in ("digits", "cifar10")
        for tolerance, value in (("0.1", 1.0), ("0.001", 0.01))
        for solver in ("anderson", "broyden", "newton")
    }
    sweep_picture.draw(folder / "table.png", table, cells)
    runner = sweep_race.Runner(
        "0_job", "exact", (("task", "digits"),), "0", {}, (1.0, 0.1, 0.001), (1.0, 2.0, 3.0), {}
    )
    assert RACE is not None
    other = runner._replace(way="shine", values=(1.0, 0.5, 0.2))
    sweep_race.draw_race(folder / "race.png", [[runner, other]], RACE)
    for importances in ({}, {"optimizer.lr": 0.7, "solver+gradient": 0.3}):
        search.draw(folder / "search.png", found("max", TRIALS, importances))
    runs = [groups_of_runs.Measured((0.9, 0.95)), groups_of_runs.Measured((0.8,))]
    groups = [
        groups_of_runs.Group({"solver": f"solver_{k}"}, 2, {f"test {name}": runs[k % 2]}, None)
        for k in range(12)
        for name in ("accuracy", "loss")
    ]
    groups_of_runs.draw_groups(groups, folder)


def of_masks_and_classes(folder: Path) -> None:
    mask = torch.arange(19).repeat(21)[:384].view(2, 12, 16)
    samples = {"image": torch.randn(2, 3, 12, 16), "mask": mask, "prediction": mask}
    plot.draw_overlays(samples, ["traffic light"] * 19, folder / "masks.png")
    for classes in (2, 20, 60, 1000):
        true = RANDOM.integers(0, classes, 3 * classes)
        predicted = (true + (RANDOM.random(len(true)) < 0.3)) % classes
        names = [f"class of the name {number}" for number in range(classes)]
        confusion.draw_confusion(folder, true, predicted, names)
    numbers = torch.arange(7)
    mistakes = {"image": torch.randn(7, 1, 6, 8), "true": numbers, "predicted": numbers + 1}
    shares = {"of_true": torch.rand(7), "of_predicted": torch.rand(7)}
    confusion.draw_mistakes(folder, mistakes | shares, names)


def of_attention(folder: Path) -> None:
    names = ["encoder 1", "encoder 2", "cross 1"]
    source = ["ein", "zwei", "drei", "vier", "fünf", "sechs"]
    attention.draw_attention(folder, maps(*names, heads=8), source, ["a", "b", "c", "d"])
    kernels = {f"layer {number}": torch.rand(9, 30) for number in range(7)}
    widths = {name: torch.rand(9) for name in kernels}
    attention.draw_kernels(folder, kernels, widths)
    streams.draw_crossmodal(folder, 1, maps_of(FULL), STREAMS, "Attention")
    streams.draw_sentiment(folder, RANDOM.normal(size=9), RANDOM.normal(size=9))
    scores = {"accuracy_happy": 0.7, "f1_happy": 0.6}
    streams.draw_emotions(folder, ["happy"], scores, [0.5])


def of_others(folder: Path) -> None:
    types = [f"{bonds}JH{other}" for bonds in range(1, 4) for other in "CHN"]
    kind = np.arange(90) % 9 + 1
    couplings.draw_couplings(folder, RANDOM.normal(size=90), RANDOM.normal(size=90), kind, types)
    embeddings.draw_correlation(torch.eye(8), folder / "correlation.png")
    labels = torch.arange(30) % 10
    embeddings.draw_projection(torch.randn(30, 4), labels, ["cat", "dog"], folder / "features.png")
    history = {"seconds": [1.0, 2.0, 3.0, 4.0], "loss": [1.0, 0.01, 0.0001, 0.0]}
    hyperparameters.draw_outer_steps(history, folder)
    hyperparameters.draw_hyperparameters({"weight decay": np.arange(4.0)}, folder)
    for samples in (survey(3, None), survey(2, None), survey(1, TREE)):
        ranges.draw_ranges(samples, folder)
    names = [f"submission {number}" for number in range(12)]
    for weights in ({"weight": RANDOM.random(12)}, {name: RANDOM.random(12) for name in types}):
        submissions.draw_weights(names, weights, folder / "weights.png")
    submissions.draw_correlation(names, np.eye(12), folder / "errors.png")
    dropped = [{"dropped": n, "best_single": -1.0, "ensemble": -2.0} for n in (0, 1, 4)]
    submissions.draw_dropped(dropped, folder / "dropped.png")
    StepTable.of(EQUILIBRIUM).draw(folder / "profile.png")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Shown]:
    """All pictures, of which nothing is written."""
    shown: list[Shown] = []

    def record(figure: Figure, file: Any, format: str, **_: Any) -> None:
        frame = sys._getframe(2)
        drawn_by = Path(frame.f_code.co_filename).stem, frame.f_code.co_name
        if format == "png":
            figure.draw_without_rendering()
            texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
            sizes = {t.get_text(): t.get_fontsize() * CSS_PIXELS / POINTS_OF_INCH for t in texts}
            whole = [*figure.findobj(Legend), *(axes.title for axes in figure.axes)]
            whole += [axes._left_title for axes in figure.axes]
            boxes = [(artist, artist.get_window_extent()) for artist in whole]
            cut = [str(a) for a, box in boxes if box.x0 < -1 or box.x1 > figure.bbox.x1 + 1]
            shown.append(Shown(drawn_by, figure.get_figwidth() * CSS_PIXELS, sizes, cut))

    folder = tmp_path_factory.mktemp("pictures")
    kinds: list[Callable[[Path], None]] = [
        of_curves, of_sweeps, of_masks_and_classes, of_attention, of_others,
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", record)
        for draw in kinds:
            draw(folder)
    return shown


def test_every_function_that_saves_a_picture_is_called(pictures: list[Shown]) -> None:
    saving = set()
    for file in Path(report.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(inner, ast.Call) and ast.unparse(inner.func) == "save"
                for inner in ast.walk(node)
            ):
                saving.add((file.stem, node.name))
    assert {picture.drawn_by for picture in pictures} == saving


def test_every_text_has_its_least_size(pictures: list[Shown]) -> None:
    small = [
        (*picture.drawn_by, text, size)
        for picture in pictures
        for text, size in picture.texts.items()
        if size < LEAST
    ]
    assert not small
    assert sum(len(picture.texts) for picture in pictures) > 500


def test_no_legend_or_title_is_cut(pictures: list[Shown]) -> None:
    assert not [(*picture.drawn_by, picture.cut) for picture in pictures if picture.cut]


def test_no_number_has_a_raised_exponent(pictures: list[Shown]) -> None:
    texts = [text for picture in pictures for text in picture.texts]
    assert not [text for text in texts if is_math_text(text)]


def test_pictures_fit_the_page_but_for_rows_of_many_maps(pictures: list[Shown]) -> None:
    assert "max-width: 1080px" in STYLE
    wide = {p.drawn_by for p in pictures if p.width > 1080 - FRAME}
    assert wide <= {("attention", "_draw_maps")}
    halves = [p for p in pictures if p.width == plot.HALF * CSS_PIXELS]
    assert len(halves) > 5
    assert 2 * (plot.HALF * CSS_PIXELS + FRAME) + 16 <= 1080
