"""Signatures as the schema, and the agreement of conf/ with them."""

import copy
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from equipoise.config.about import choice_files, keys_of_others, written
from equipoise.config.compose import CONF, WITHIN_OTHERS, compose, plain
from equipoise.config.own_code import as_packages
from equipoise.config.signatures import (
    check_signatures,
    check_targets,
    known_arguments,
    locate,
    target_nodes,
)
from equipoise.errors import UserError

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
    for file in [file for folder in CONF.rglob("") for file in choice_files(folder)]:
        nodes += [
            pytest.param(key or place(file), node, id=f"{file.relative_to(CONF)}:{key}")
            for key, node in target_nodes(written(file))
            if "[" not in key  # an entry of a list is a value that this choice sets
        ]
    return nodes


def place(file: Path) -> str:
    """The key at which the choice of a file stands."""
    return WITHIN_OTHERS.get(file.parent.name, file.parent.name)


@pytest.mark.parametrize(("key", "node"), yaml_nodes())
def test_the_yaml_names_every_argument_with_the_default_of_the_signature(key, node):
    target = locate("", node["_target_"])
    parameters = inspect.signature(target).parameters
    handed_on = known_arguments(target)
    constructor = target.__init__ if inspect.isclass(target) else target
    ours = constructor.__module__.startswith("equipoise.")  # an inherited one is its author's
    # One of several choices fills such a place, with values of its own.
    filled_by_choices = tuple(key.removeprefix("task.") for key in WITHIN_OTHERS.values())
    for name, parameter in parameters.items():
        if name in GIVEN_BY_RUN | TORCH_SPEED and name not in node:
            continue
        if name not in node and f"{key}.{name}".endswith(filled_by_choices):
            continue
        assert name in node, f"{name} is missing"
        default = parameter.default
        plain_default = isinstance(default, bool | int | float | str | None)
        fixed = key not in WITHIN_OTHERS.values() and not isinstance(node[name], str | dict)
        if ours and plain_default and fixed:
            assert node[name] == default, f"{name} differs from the signature"
    unknown = set(node) - set(handed_on) - {"_target_", "_partial_"}
    assert unknown <= keys_of_others(key, node)


def test_conf_has_a_line_of_help_in_every_file():
    from equipoise.config.help_page import description

    files = [file for file in CONF.rglob("*.yaml") if file.parent != CONF]
    assert [str(file) for file in files if not description(file)] == []


def test_conf_is_found_beside_the_sources():
    assert (Path(CONF) / "train.yaml").is_file()


def test_what_choices_share_is_no_choice_in_the_help():
    from equipoise.config.help_page import text

    assert (CONF / "solver" / "_common.yaml").is_file()
    assert " _" not in text()


DEFAULT = plain(compose(["run_dir=run"]).config, resolve=True)


def stored_config(key: str = "", node: Any = None) -> dict[str, Any]:
    found = copy.deepcopy(DEFAULT)
    *parents, last = key.split(".")
    place = found
    for parent in parents:
        place = place[parent]
    if key:
        place[last] = node
    return found


CALLS = ["os.mkdir", "os.system", "shutil.rmtree", "subprocess.Popen", "builtins.eval",
         "hydra.utils.instantiate", "pickle.loads", "importlib.import_module"]  # fmt: skip
FUNCTIONS = ["torch.hub.load", "torch.load", "torch.utils.cpp_extension.load", "equipoise.run",
             "torchvision.models.resnet18", "lightning.pytorch.seed_everything"]  # fmt: skip
MISPLACED = ["torch.utils.tensorboard.SummaryWriter", "torch.distributed.TCPStore",
             "torch.package.PackageImporter", "torchvision.datasets.CIFAR10", "torch.nn.Linear",
             "torch.multiprocessing.Process"]  # fmt: skip


@pytest.mark.parametrize("place", ["callbacks.x", "solver", "task.objective", "model", "trainer"])
def test_the_default_is_trusted_and_calls_are_not(place: str) -> None:
    check_targets(stored_config(), [])
    for target in CALLS:
        with pytest.raises(UserError, match=r"not our code.*trust=\["):
            check_targets(stored_config(place, {"_target_": target, "path": "made"}), [])


@pytest.mark.parametrize("target", [*FUNCTIONS, *MISPLACED])
@pytest.mark.parametrize("place", ["callbacks.x", "optimizer", "task"])
def test_only_classes_that_fit_their_place_are_taken(place: str, target: str) -> None:
    with pytest.raises(UserError, match=r"does not belong there|cannot import"):
        check_targets(stored_config(place, {"_target_": target}), [])


@pytest.mark.parametrize("target", FUNCTIONS + MISPLACED[:4])
def test_nor_anywhere_else(target: str) -> None:
    for place in ("solver", "gradient.x", "model", "trainer.plugins", "callbacks.x"):
        with pytest.raises(UserError, match=r"does not belong there|cannot import"):
            check_targets(stored_config(place, [{"_target_": target}]), [])


@pytest.mark.parametrize(
    "target",
    ["mkdir", "", "torch..x", "torch.nn.Linear()", "torch._C.PyTorchFileWriter", 7, "torch.é",
     "equipoise.running.api.sys.exit", "torch.utils.cpp_extension.subprocess.Popen"],
)  # fmt: skip
def test_a_name_that_is_no_class_is_refused(target: Any) -> None:
    node = {"_target_": target}
    if not target:
        check_targets(stored_config("solver", node), [])  # no target at all builds nothing
        return
    with pytest.raises(UserError, match=r"not a class|cannot import|does not belong there"):
        check_targets(stored_config("solver", node), [])


def test_a_class_of_another_package_under_a_known_name_is_refused() -> None:
    import torch.utils.cpp_extension as module  # it imports pathlib's Path into itself

    assert module.Path is Path
    with pytest.raises(UserError, match="does not belong there"):
        check_targets(stored_config("solver", {"_target_": "torch.utils.cpp_extension.Path"}), [])


def test_a_package_that_is_named_is_trusted_and_no_other_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine_to_trust", "mine_unnamed"):
        (tmp_path / f"{name}.py").write_text("class Mine:\n    pass\n\ndef make():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("Mine", "make"):
        mine = stored_config("callbacks.mine", {"_target_": f"mine_to_trust.{name}"})
        with pytest.raises(UserError, match=r"trust=\[mine_to_trust\]"):
            check_targets(mine, ["mine_unnamed"])
        assert "mine_to_trust" not in sys.modules or name == "make"
        check_targets(mine, ["mine_to_trust"])
    assert "mine_unnamed" not in sys.modules


def test_packages_are_names() -> None:
    assert as_packages(["a", "b_c"]) == ("a", "b_c")
    assert as_packages("a") == ("a",)
    for wrong in ([1], ["a.b"], ["../a"], [None], {"a": 1}):
        with pytest.raises(UserError, match="must be a list of packages"):
            as_packages(wrong)
