"""A stored configuration runs the code of known packages alone, and of those that are named."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

from equipoise.compose import compose, plain
from equipoise.errors import UserError
from equipoise.trust import as_packages, check_targets

DEFAULT = plain(compose(["run_dir=run"]).config, resolve=True)


def config(key: str = "", node: Any = None) -> dict[str, Any]:
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
    check_targets(config(), [])
    for target in CALLS:
        with pytest.raises(UserError, match=r"code that is not ours.*trust=\["):
            check_targets(config(place, {"_target_": target, "path": "made"}), [])


@pytest.mark.parametrize("target", [*FUNCTIONS, *MISPLACED])
@pytest.mark.parametrize("place", ["callbacks.x", "optimizer", "task"])
def test_only_classes_that_fit_their_place_are_taken(place: str, target: str) -> None:
    with pytest.raises(UserError, match=r"does not belong there|cannot import"):
        check_targets(config(place, {"_target_": target}), [])


@pytest.mark.parametrize("target", FUNCTIONS + MISPLACED[:4])
def test_nor_anywhere_else(target: str) -> None:
    for place in ("solver", "gradient.x", "model", "trainer.plugins", "callbacks.x"):
        with pytest.raises(UserError, match=r"does not belong there|cannot import"):
            check_targets(config(place, [{"_target_": target}]), [])


@pytest.mark.parametrize(
    "target",
    ["mkdir", "", "torch..x", "torch.nn.Linear()", "torch._C.PyTorchFileWriter", 7, "torch.é",
     "equipoise.running.api.sys.exit", "torch.utils.cpp_extension.subprocess.Popen"],
)  # fmt: skip
def test_a_name_that_is_no_class_is_refused(target: Any) -> None:
    node = {"_target_": target}
    if not target:
        check_targets(config("solver", node), [])  # no target at all builds nothing
        return
    with pytest.raises(UserError, match=r"no class|cannot import|does not belong there"):
        check_targets(config("solver", node), [])


def test_a_class_of_another_package_under_a_known_name_is_refused() -> None:
    import torch.utils.cpp_extension as module  # it imports pathlib's Path into itself

    assert module.Path is Path
    with pytest.raises(UserError, match="does not belong there"):
        check_targets(config("solver", {"_target_": "torch.utils.cpp_extension.Path"}), [])


def test_a_package_that_is_named_is_trusted_and_no_other_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine_to_trust", "mine_unnamed"):
        (tmp_path / f"{name}.py").write_text("class Mine:\n    pass\n\ndef make():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("Mine", "make"):
        mine = config("callbacks.mine", {"_target_": f"mine_to_trust.{name}"})
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
