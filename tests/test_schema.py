"""Signatures as the schema, and the agreement of conf/ with them."""

import inspect
from pathlib import Path

import pytest

from equipoise.compose import CONF, compose, plain
from equipoise.config.about import keys_of_others, written
from equipoise.errors import UserError
from equipoise.schema import check_signatures, locate, target_nodes

GIVEN_BY_RUN = {
    "equilibrium", "callbacks", "logger", "model", "make_optimizer", "schedule", "params",
    "solver", "gradient", "eval_solver", "regularizer", "experiment", "dir", "anonymous",
    "checkpoint_name", "add_file_policy", "kwargs",
}  # fmt: skip
TORCH_SPEED = {"foreach", "maximize", "capturable", "differentiable", "fused",
               "decoupled_weight_decay"}  # fmt: skip


def config(*typed: str) -> dict:
    return plain(compose([*typed, "run_dir=somewhere"]).config, resolve=True)


def test_the_default_configuration_fits_the_signatures():
    check_signatures(config())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("model.size=huge", "model.size=huge is not one of auto, tiny, small, large, xl"),
        ("solver.stop=relativ", "did you mean relative?"),
        ("model.channels=wide", "model.channels=wide is not of type"),
        ("trainer.precision=bf17-mixed", "did you mean bf16-mixed?"),
        ("trainer.gradient_clip_val=much", "trainer.gradient_clip_val=much is not of type"),
        ("task.batch_size=null", "task.batch_size=None is not of type int"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(typed, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        check_signatures(config(typed))


def test_a_key_that_the_class_does_not_take_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="takes no 'dampng'; did you mean damping"):
        check_signatures({"g": {"_target_": "equipoise.equilibrium.Phantom", "dampng": 0.5}})


def test_a_class_that_cannot_be_imported_is_named_with_the_cause():
    with pytest.raises(UserError, match=r"model: cannot import equipoise.modls.X: No module"):
        locate("model", "equipoise.modls.X")


def yaml_nodes() -> list:
    nodes = []
    for file in sorted(CONF.rglob("*.yaml")):
        nodes += [
            pytest.param(key or file.parent.name, node, id=f"{file.relative_to(CONF)}:{key}")
            for key, node in target_nodes(written(file))
            if "[" not in key  # an entry of a list is a value that this choice sets
        ]
    return nodes


@pytest.mark.parametrize(("key", "node"), yaml_nodes())
def test_the_yaml_names_every_argument_with_the_default_of_the_signature(key, node):
    target = locate("", node["_target_"])
    parameters = inspect.signature(target).parameters
    constructor = target.__init__ if inspect.isclass(target) else target
    ours = constructor.__module__.startswith("equipoise.")  # an inherited one is its author's
    for name, parameter in parameters.items():
        if name in GIVEN_BY_RUN | TORCH_SPEED and name not in node:
            continue
        assert name in node, f"{name} is missing"
        default = parameter.default
        plain_default = isinstance(default, bool | int | float | str | None)
        if ours and plain_default and not isinstance(node[name], str | dict):
            assert node[name] == default, f"{name} differs from the signature"
    unknown = set(node) - set(parameters) - {"_target_", "_partial_"}
    assert unknown <= keys_of_others(key, node)


def test_conf_has_a_line_of_help_in_every_file():
    from equipoise.help_page import description

    files = [file for file in CONF.rglob("*.yaml") if file.parent != CONF]
    assert [str(file) for file in files if not description(file)] == []


def test_conf_is_found_beside_the_sources():
    assert (Path(CONF) / "train.yaml").is_file()


def test_what_choices_share_is_no_choice_in_the_help():
    from equipoise.help_page import text

    assert (CONF / "solver" / "_common.yaml").is_file()
    assert " _" not in text()
