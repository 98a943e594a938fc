"""Data and accounts that are not there, told before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.config.compose import CONF, compose
from equipoise.errors import UserError
from equipoise.running.surroundings import check_surroundings


@pytest.fixture(autouse=True)
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose user has no account."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*typed: str) -> None:
    check_surroundings(compose(typed).config)


@pytest.mark.parametrize(
    "task", ["cityscapes", "imagenet", "ptb", "ptb_char", "segmentation_folder", "text_folder"]
)
def test_a_task_without_data_says_what_its_data_module_says(task):
    from equipoise.config.compose import plain
    from equipoise.running.build import instantiate

    config = compose([f"task={task}"]).config
    with pytest.raises(UserError, match=r"set task\.path") as early:
        check_surroundings(config)
    node = {k: v for k, v in plain(config, resolve=True)["task"].items() if k != "objective"}
    with pytest.raises(UserError) as late:
        instantiate("task", node).setup("fit")
    assert str(early.value) == str(late.value)


def test_every_task_that_needs_a_path_says_so():
    said = {
        file.stem for file in (CONF / "task").glob("*.yaml") if "without_path" in file.read_text()
    }
    null = {
        file.stem for file in (CONF / "task").glob("*.yaml") if "path: null" in file.read_text()
    }
    # these draw people, and take a bundled set, where there is no file
    assert null - said == {"range_query", "hyperparameter"}


@pytest.mark.parametrize(
    "typed",
    [("task=text_folder", "task.path=nowhere"), ("task=cifar10", "task.path=./nowhere"),
     ("task=imagenet", "task.path=/no/where"), ("task=range_query", "task.path=ages.csv")],
)  # fmt: skip
def test_a_file_or_folder_that_is_not_there_is_named(typed):
    with pytest.raises(UserError, match=r"There is no file or folder .*: set task\.path"):
        check(*typed)


def test_a_dataset_of_the_hub_and_a_folder_that_is_there_pass(stranger: Path):
    check("task=cifar10")
    check("task=imagenet", "task.path=ILSVRC/imagenet-1k")
    (stranger / "text").mkdir()
    check("task=text_folder", 'task.path="~/text"')
    check("task=range_query")


def test_machines_that_nobody_has_started_are_not_waited_for(monkeypatch):
    with pytest.raises(UserError, match=r"trainer\.num_nodes=3 needs processes on other machines"):
        compose(["trainer.num_nodes=3", "strategy=ddp_cpu"])
    monkeypatch.setenv("SLURM_NNODES", "3")
    compose(["trainer.num_nodes=3", "strategy=ddp_cpu"])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["task=digit_scenes", "task.train_scenes=100000000", "task.canvas=65536"], "canvas=65536"),
        (["task=range_query", "task.users=100000000", "task.repeats=10000"], "users=100000000"),
        (["task=hyperparameter", "task.rows=1000000", "task.columns=1000000", "task.density=0.5"],
         r"density=0\.5"),
        (["task=text_folder", "task.path=.", "task.batch_size=1000000",
          "task.segment_length=1000000"], "segment_length=1000000"),
        (["task=segmentation_folder", "task.path=.", "task.batch_size=1000000",
          "task.crop=[65536,65536]"], r"crop=\[65536, 65536\]"),
    ],
)  # fmt: skip
def test_sizes_that_are_too_much_together_are_refused_before_memory_is_asked_for(typed, said):
    with pytest.raises(UserError, match=rf"{said}.* need [\d,]+ GiB of memory at least"):
        check(*typed)


def test_attention_over_a_sequence_that_no_memory_holds_is_refused():
    with pytest.raises(UserError, match=r"task\.length=1000000 need [\d,]+ GiB .* for attention"):
        check("task=copy_memory", "task.length=1000000")
    check("task=copy_memory", "model=trellisnet", "task.length=1000000")


@pytest.mark.parametrize("name", ["train_size", "val_size", "test_size"])
def test_more_tokens_than_can_be_gone_through_are_refused(name):
    check("task=copy_memory", "task.length=1000")
    with pytest.raises(UserError, match=rf"task\.{name}=\d+ and task\.length=100000 make"):
        check("task=copy_memory", "task.length=100000", f"task.{name}=100000000")
