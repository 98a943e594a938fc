"""The model card: front matter that the hub reads, and what a reader wants to know."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import ModelCard

from equipoise.report.model_card import Card, ProgramCard, model_card

METRICS = {
    "test": {"accuracy": 0.975, "loss": float("nan"), "miou": 0.5},
    "solver_stats": {"nfe_mean": 12.0, "converged_fraction": 0.9, "layers": {}},
    "epochs": 3,
}
PROGRAM = ProgramCard(
    file="model.onnx", inputs={"image": [2, 1, 8, 8]}, outputs=["logits"],
    evaluations={"equilibrium": 9}, difference=3e-8,
)  # fmt: skip


def card(**settings: Any) -> Card:
    facts: dict[str, Any] = {
        "name": "digits", "task": "digits", "model": "mdeq", "wants": "logits",
        "parameters": 76158, "metrics": METRICS,
        "solver": {"name": "anderson", "tol": 1e-3, "max_steps": 30},
    }  # fmt: skip
    return Card(**facts | settings)


def test_the_hub_reads_its_front_matter() -> None:
    data = ModelCard(model_card(card(licence="mit"))).data
    assert data.license == "mit"
    assert data.library_name == "equipoise"
    assert data.pipeline_tag == "image-classification"
    assert data.tags == ["equipoise", "deep-equilibrium", "mdeq", "digits"]
    figures = {result.metric_type: result.metric_value for result in data.eval_results}
    assert figures == {"accuracy": 0.975, "mean_iou": 0.5}  # what is no number is no figure


def test_without_a_licence_none_is_claimed() -> None:
    text = model_card(card())
    assert ModelCard(text).data.license is None
    assert "Licence of the weights: not stated." in text
    assert "Licence of the data: not stated." in text


def test_it_tells_the_figures_the_data_and_the_classes() -> None:
    text = model_card(card(data_licence="CC BY 4.0", class_names=["cat", "dog"], data_path="a/b"))
    for words in (
        "| test accuracy | 0.975 |", "| solver nfe_mean | 12 |", "| epochs | 3 |",
        "`task=digits` at `a/b`. Licence of the data: CC BY 4.0.", "76,158 parameters",
        "Its 2 classes, in order: `cat`, `dog`.", "residual falls below 0.001",
    ):  # fmt: skip
        assert words in text


def test_without_metrics_it_has_no_figures() -> None:
    text = model_card(card(metrics=None))
    assert "No metrics.json lay beside the checkpoint." in text
    assert ModelCard(text).data.eval_results is None


def test_many_classes_are_not_all_listed() -> None:
    text = model_card(card(class_names=[f"n{i}" for i in range(1000)]))
    assert "`n49` and 950 more, in `config.json`" in text
    assert "`n50`" not in text


def test_a_program_tells_its_budget_and_what_that_does_to_the_tolerance() -> None:
    text = " ".join(model_card(card(program=PROGRAM)).split())
    for words in (
        "In: `image` (batch, 1, 8, 8), any number of samples. Out: `logits`.",
        "spends the same evaluations of f on every sample: 9 in `equilibrium`",
        "It looks at no tolerance", "differ by at most 3e-08",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize("file", ["model.onnx", "model.pt2"])
def test_tokens_are_whole_numbers(file: str) -> None:
    program = ProgramCard(file, {"tokens": [2, 16]}, ["log_probabilities"], {}, 0.0)
    text = model_card(card(program=program, solver=None))
    kind = "np" if file.endswith("onnx") else "torch"
    assert f"tokens = {kind}.zeros((4, 16), dtype={kind}.int64)" in text
    assert "It has no equilibrium layer." in text
