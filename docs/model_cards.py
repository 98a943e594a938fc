"""Write docs/model_cards.md from conf/recipe: `python docs/model_cards.py`.

A card says what a recipe composes to: its data and their licence, parameters, budget, training. A
test compares the page with what this would write.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "model_cards.md"
OURS = "our own recipe"
HEAD = """# Model cards of the recipes

A recipe is chosen by its task and model, as in `python train.py task=cifar10 model=mdeq`. `python
docs/model_cards.py` writes this page from the files of `conf/recipe`; a test fails when the two
disagree. Every setting can be changed on the command line
([Configuration](configuration.md#recipes)).

Figures in the sentence below a title are those of the authors, unless it says "our own recipe".
Published recipes were composed, built and, where weights were published, compared with recorded
values, but not trained at full size here; what was measured is on the page of [each
system](systems.md). None of these networks was tested for uses beyond its test split.

Budgets count evaluations of f, and of an exact gradient products with the transposed Jacobian.
"""
EXPERIMENTS = """## Experiments

Variants of the recipes, chosen by `experiment=<name>`, without a card of their own:

| experiment | what it is |
|---|---|
"""
OF_THE_DATA = "follow from the data (the vocabulary, or the classes)"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page())
    print(f"page: {PAGE}")
    return 0


def page() -> str:
    """The page; no copy of a dataset on this machine has a part in it."""
    from equipoise.config.help_page import description

    with tempfile.TemporaryDirectory() as empty:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": empty, "HF_DATASETS_CACHE": empty}
        files = sorted((ROOT / "conf" / "recipe").glob("[!_]*.yaml"))
        cards = [card(file) for file in files]
    others = sorted((ROOT / "conf" / "experiment").glob("[!_]*.yaml"))
    rows = [f"| `{file.stem}` | {description(file)} |" for file in others]
    return "\n".join([HEAD, *cards, EXPERIMENTS.rstrip(), *rows, ""])


def card(file: Path) -> str:
    """What the recipe of this file composes to, as a section."""
    from equipoise.config.about import about
    from equipoise.config.compose import compose, plain
    from equipoise.config.help_page import description

    task, model = names(file.stem)
    config = plain(compose([f"task={task}", f"model={model}"]).config)
    task_file = ROOT / "conf" / "task" / f"{task}.yaml"
    path = " task.path=<folder>" * needs_path(config)
    rows = {
        "command": f"`python train.py task={task} model={model}{path}`",
        "data": description(task_file),
        "licence of the data": about(config["task"], "licence") or licence(description(task_file)),
        "parameters": parameters(task, model),
        **dict(budget(config)),
        "training": training(config),
        "limits": limits(description(file), config),
    }  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## {file.stem}\n\n{description(file)}.\n\n| | |\n|---|---|\n{table}\n"


def names(recipe: str) -> tuple[str, str]:
    """Task and model of a recipe: digits_mdeq -> digits, mdeq."""
    models = sorted((file.stem for file in (ROOT / "conf" / "model").glob("*.yaml")), key=len)
    model = next(name for name in reversed(models) if recipe.endswith(f"_{name}"))
    return recipe.removesuffix(f"_{model}"), model


def licence(said: str) -> str:
    """What is known of the licence of a task's data where its file names none."""
    if "generated" in said:
        return "none needed: generated"
    return "yours" if " own" in said or "labelled pictures" in said else "not recorded here"


def needs_path(config: Mapping[str, Any]) -> bool:
    """Whether the task reads files that must be named."""
    from equipoise.config.about import about

    return config["task"].get("path", "") is None and bool(about(config["task"], "without_path"))


def parameters(task: str, model: str) -> str:
    """How many numbers are trained, where no data are needed to know it."""
    import equipoise
    from equipoise.errors import UserError

    try:
        network = equipoise.build(f"task={task}", f"model={model}")
    except UserError:
        return OF_THE_DATA
    return f"{sum(p.numel() for p in network.parameters() if p.requires_grad):,}"


def budget(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Solver, gradient and phases of an equilibrium model; nothing of an explicit one."""
    if not config.get("solver"):
        return
    yield "solver", solver(config["solver"])
    gradient = config["gradient"]
    settings = {k: v for k, v in gradient.items() if k not in ("_target_", "solver", "adjoint")}
    words = ", ".join(f"{name} {shown(value)}" for name, value in settings.items())
    inner = f"by {solver(gradient['solver'])}" if gradient.get("solver") else words
    yield "gradient", f"{kind(gradient)} {inner}".strip()
    phases = config.get("callbacks", {}).get("gradient_schedule", {}).get("phases") or []
    if phases:
        yield "phases", "; ".join(phase(p) for p in phases)


def solver(node: Mapping[str, Any]) -> str:
    """A solver in words."""
    return (
        f"{kind(node)}, {node['max_steps']} evaluations, tolerance {shown(node['tol'])} "
        f"({node['stop']})"
    )


def phase(node: Mapping[str, Any]) -> str:
    """A phase of the gradient schedule in words."""
    estimator = node.get("gradient")
    what = f"{kind(estimator)}, {estimator['steps']} steps" if estimator else "the equilibrium"
    return f"from {100 * node['start']:g} % of the run: {what}"


def training(config: Mapping[str, Any]) -> str:
    """Optimiser, schedule, length and batch in words."""
    trainer, task = config["trainer"], config["task"]
    optimizer = config.get("optimizer") or {}
    rate = f", rate {shown(optimizer['lr'])}" if "lr" in optimizer else ""
    length = (
        f"{trainer['max_steps']:,} steps" if trainer["max_steps"] > 0
        else f"{trainer['max_epochs']:,} epoch{'s' * (trainer['max_epochs'] != 1)}"
    )  # fmt: skip
    schedule = config.get("schedule") or {}
    parts = [f"{kind(optimizer)}{rate}", f"{kind(schedule).lower()} schedule", length]
    if "batch_size" in task:
        parts.append(f"batches of {task['batch_size']}")
    return ", ".join(parts)


def limits(said: str, config: Mapping[str, Any]) -> str:
    """What must not be expected of it."""
    if OURS in said:
        return "chosen by us for small machines; no published figure to compare with"
    processes = (config.get("recipe", {}).get("published") or {}).get("processes")
    shared = f" on {processes} GPUs" if processes and processes > 1 else ""
    return f"published for training{shared}; the figure is the authors', not ours"


def kind(node: Mapping[str, Any]) -> str:
    """The name of the class behind a node."""
    return str(node.get("_target_", "none")).rpartition(".")[2].replace("_schedule", "")


def shown(value: Any) -> str:
    """A number or a list as a reader writes it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "several" if any(isinstance(v, Mapping) for v in value) else str(list(value))
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
