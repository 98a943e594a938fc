"""A name that a user brings from elsewhere is answered with the one it has here."""

from __future__ import annotations

import re

import pytest

from equipoise.config.brought_names import CHOICES, SETTINGS
from equipoise.config.compose import compose
from equipoise.config.hydra import CONF
from equipoise.config.overrides import Menu, keys
from equipoise.errors import UserError

MENU = Menu.of([CONF])


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        compose(words)
    return str(caught.value)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_foreign_name_is_answered_with_ours(name: str) -> None:
    message = refusal(f"{name}=1")
    assert message.endswith(f"; here that is {SETTINGS[name]}")
    assert "\n" not in message


@pytest.mark.parametrize("advice", sorted(set(SETTINGS.values())))
def test_what_is_advised_exists(advice: str) -> None:
    """Its words compose, and its settings are there once they do."""
    found = re.findall(r"[\w@.]+=[\w.,\[\]-]+|[\w]+\.[\w.]+|^\w+$", advice)
    words = [word for word in found if "=" in word]
    composed = compose(
        ["model=deq_transformer", "task=copy_memory", *words] if "weight_norm" in advice else words
    )
    there = set(keys(composed.config)) | {"task.path"}
    assert found, advice
    assert not [word for word in found if "=" not in word and word not in there], advice


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, names in CHOICES.items() for n in names])
def test_a_foreign_choice_is_answered_with_ours(group: str, name: str) -> None:
    here = CHOICES[group][name]
    assert here in MENU.groups[group]
    if name != "null":
        assert f"here that is {here}; choices: " in refusal(f"{group}={name}")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.gpus=2", "Trainer takes no 'gpus'; here that is trainer.devices"),
        ("optimizer.learning_rate=1", "here that is optimizer.lr"),
        ("solver.f_thres=3", "no setting 'solver.f_thres' in solver=anderson; here that is solver"),
        ("lr=0.1", "no setting 'lr' in the configuration; did you mean optimizer.lr?"),
        ("batch_size=8", "did you mean task.batch_size?"),
    ],
)
def test_a_name_without_its_group_or_in_another_finds_its_place(word: str, said: str) -> None:
    assert said in refusal(word)
