"""The folder of an ensemble of submissions: tables, pictures, and the page with both."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.report.page import Picture, page
from equipoise.report.plot import COLOURS, INK, SMALL, new_axes, new_figure, save
from equipoise.report.summary import print_whole, table_of
from equipoise.report.whole import whole, write_whole

Floats = NDArray[np.float64]
Results = Mapping[str, Any]
"""The content of scores.json."""

NOTE = (
    "The weights were fitted on half of the truth, stratified by type, and the scores are of the "
    "other half, unless they say otherwise."
)
MEAN = "mean_log_mae"
SHOWN = 25
"""Most submissions whose weights are drawn: those with the greatest."""
NAMED = 40
"""Most submissions whose names fit beside the matrix."""
LENGTH = 32
"""Most letters of a name; the last ones are kept, as they tell names apart."""


def write_ensemble(results: Results, correlation: Floats, folder: Path) -> None:
    """Write all files but submission.csv: scores.json, the csv files, the pictures and index.html.

    correlation: (M, M), in the order of results["submissions"].
    """
    write_whole(folder / "scores.json", json.dumps({**results, "note": NOTE}, indent=1))
    _write_scores(results, folder / "scores.csv")
    _write_weights(results, folder / "weights.csv")
    _write_rows(list(results["drop_best"]), folder / "drop_best.csv")
    names = list(results["submissions"]["held_out"])
    pictures = [
        draw_weights(names, _weights(results), folder / "weights.png"),
        draw_correlation(names, correlation, folder / "correlation.png"),
        draw_dropped(results["drop_best"], folder / "drop_best.png"),
    ]
    html = page(_on_the_page(results), pictures, folder, NOTE)
    write_whole(folder / "index.html", html)


def print_ensemble(results: Results, folder: Path) -> None:
    """Print the scores of the held-out half, the gap, the yardsticks, and the paths of files."""
    rows = [_row(way, scores) for way, scores in results["scores"]["held_out"].items()]
    print_whole(table_of("ln MAE of the held-out half", list(rows[0]), rows))
    print(f"optimality gap of the weights: {max(results['gap'].values()):.1e}")
    for name, score in results["yardsticks"].items():
        print(f"{score:.3f}  {name}")
    print(NOTE)
    print(f"results: {folder / 'scores.json'}")
    print(f"report:  {folder / 'index.html'}")


def _row(name: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    return {"": name, "mean": scores[MEAN], **scores["log_mae"]}


def _weights(results: Results) -> dict[str, Floats]:
    """The weights (M,) of each type; one entry where all types have the same."""
    every = {name: np.array(list(of.values())) for name, of in results["weights"].items()}
    return every if results["mode"] == "per_type" else {"weight": next(iter(every.values()))}


def _write_scores(results: Results, file: Path) -> None:
    """A row for each blend or submission and each half."""
    rows = []
    for kind in ("scores", "submissions"):
        for half, scores_of in results[kind].items():
            for name, scores in scores_of.items():
                of = {"blend" if kind == "scores" else "submission": name}
                rows.append(
                    {"blend": "", "submission": "", **of, "half": half, MEAN: scores[MEAN]}
                    | scores["log_mae"]
                )
    _write_rows(rows, file)


def _write_weights(results: Results, file: Path) -> None:
    """A row for each submission, the best of the fitted half first."""
    columns = {name: values.tolist() for name, values in _weights(results).items()}
    names = results["submissions"]["held_out"]
    _write_rows(
        [
            {"submission": name, **{key: values[place] for key, values in columns.items()}}
            for place, name in enumerate(names)
        ],
        file,
    )


def _write_rows(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    with whole(file) as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _on_the_page(results: Results) -> dict[str, Any]:
    """The results in the form that the page of a run takes."""
    held_out, fitted = (results["scores"][half] for half in ("held_out", "fitted"))
    return {
        "task": "ensemble",
        "model": f"{len(results['submissions']['held_out'])} submissions, {results['mode']}",
        "status": "completed",
        "solver": results["solver"],
        "seed": results["seed"],
        "seconds": results["seconds"],
        "details": {
            "mean_ln_MAE_of_the_held_out_half": {n: s[MEAN] for n, s in held_out.items()},
            "of_the_fitted_half": {n: s[MEAN] for n, s in fitted.items()},
            "ensemble,_held_out_half": held_out["ensemble"]["log_mae"],
            "optimality_gap_of_the_weights": results["gap"],
            "couplings_held_out": results["couplings"]["held_out"],
            "published_scores": results["yardsticks"],
        },
    }


def draw_weights(names: Sequence[str], weights: Mapping[str, Floats], path: Path) -> Picture:
    """Draw the greatest weights, a row for each submission; weights: (M,) for each type.

    Where all types have the same weights, `weights` has one entry.
    """
    matrix = np.stack(list(weights.values()), axis=1)
    shown = np.argsort(-matrix.max(axis=1), kind="stable")[:SHOWN]
    shown = shown[matrix[shown].max(axis=1) > 0][::-1]
    figure, axes = new_axes("Weights", "weight", "")
    figure.set_size_inches(7.4, 1.6 + 0.24 * len(shown))
    if len(weights) == 1:
        axes.barh(range(len(shown)), matrix[shown, 0], color=COLOURS[0])
    else:
        picture = axes.imshow(matrix[shown], cmap="Blues", vmin=0, aspect="auto", origin="lower")
        axes.set_xticks(range(len(weights)), list(weights))
        axes.set_xlabel("type", color=INK)
        axes.grid(visible=False)
        figure.colorbar(picture, ax=axes, label="weight")
    axes.set_yticks(range(len(shown)), [_short(names[row]) for row in shown], fontsize=SMALL)
    save(figure, path)
    return Picture(path.name, f"The weights of {len(shown)} of {len(names)} submissions.")


def draw_correlation(names: Sequence[str], correlation: Floats, path: Path) -> Picture:
    """Draw the correlations (M, M) between the errors of submissions in the order of `names`."""
    figure = new_figure(7.4, 6.4)
    axes = figure.add_subplot()
    picture = axes.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    figure.colorbar(picture, ax=axes, label="correlation", shrink=0.85)
    axes.set_title("Correlation of the errors", loc="left", fontsize=12, color=INK)
    axes.tick_params(colors=INK)
    if len(names) <= NAMED:
        labels = [_short(name) for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=SMALL)
        axes.set_yticks(range(len(names)), labels, fontsize=SMALL)
    else:
        axes.set_xlabel("submissions, the best first", color=INK)
    save(figure, path)
    return Picture(
        path.name,
        "Correlation of two submissions' errors, the mean over the types, the best submission "
        "first: what is good and unlike the others is worth a weight.",
    )


def draw_dropped(rows: Sequence[Mapping[str, Any]], path: Path) -> Picture:
    """Draw the scores without the best submissions; rows: those of drop_best.csv."""
    figure, axes = new_axes(
        "Without the best submissions", "best submissions left out", "mean ln MAE"
    )
    dropped = [row["dropped"] for row in rows]
    for name, colour in (("best_single", COLOURS[1]), ("ensemble", COLOURS[0])):
        scores = [row[name] for row in rows]
        label = name.replace("_", " ")
        axes.plot(dropped, scores, color=colour, marker="o", markersize=3.5, label=label)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks(dropped, [str(number) for number in dropped])
    axes.minorticks_off()
    axes.legend(loc="best", edgecolor="none", framealpha=0.85)
    save(figure, path)
    return Picture(
        path.name,
        "The best single submission of those that are left, and the ensemble of them, on the "
        "held-out half.",
    )


def _short(name: str) -> str:
    shown = name if len(name) <= LENGTH else f"…{name[1 - LENGTH :]}"
    return shown.replace("$", r"\$")
