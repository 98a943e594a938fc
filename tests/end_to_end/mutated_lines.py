"""Command lines with one or two faults or odd values in them, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from omegaconf import DictConfig, OmegaConf

from equipoise.config.compose import compose, flatten
from equipoise.errors import UserError
from tests.end_to_end.conftest import SMALL

SHORT = [
    "trainer.max_steps=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
    "task.batch_size=8", "callbacks.report=null",
]  # fmt: skip
MDEQ = [*SMALL[:-1], *SHORT]
WIDTH = ["model.width=16", "model.inner_width=16", "model.heads=2", "model.head_width=8"]
TEXT = ["solver.max_steps=4", *SHORT]


@dataclass(frozen=True)
class CommandLine:
    """What is typed: the script, its flags, and the overrides."""

    script: str
    words: tuple[str, ...]
    flags: tuple[str, ...] = ()

    def argv(self) -> list[str]:
        return [*self.flags, *self.words]


def valid_lines(checkpoint: str) -> list[CommandLine]:
    """Lines that work as they stand; `checkpoint` is one of the first of them."""
    trained = [
        [*MDEQ],
        [*MDEQ, "solver=broyden", "gradient=exact", "optimizer=sgd"],
        [*MDEQ, "gradient=shine", "model.dropout=0.1"],
        [*MDEQ, "gradient=reversible", "gradient.steps=3"],
        [*MDEQ, "gradient=neumann", "gradient.damping=0.5", "seed=3"],
        [*MDEQ, "gradient=auto", "regularizer=jacobian", "regularizer.weight=0.1"],
        [*MDEQ, "callbacks.gradient_schedule.phases=[{start: 0.0, gradient: jfb}]"],
        [*MDEQ, "schedule=constant", "optimizer=adamw", "optimizer.lr=1e-3"],
        [*MDEQ, "logger=[csv,tensorboard]", "trainer.accumulate_grad_batches=2"],
        [*MDEQ, "solver@eval_solver=broyden", "eval_solver.max_steps=6", "strategy=cpu"],
        ["model=resnet", *SHORT],
        ["task=copy_memory", "model=deq_transformer", *TEXT],
        ["task=python_docs", "model=transformer", *SHORT],
        ["task=digit_scenes", *SHORT, "solver.max_steps=3"],
        ["task=range_query", "task.users=2000", "callbacks.report=null"],
        ["task=range_query", "model=sw", "task.users=2000", "callbacks.report=null"],
    ]
    resumed = [f"ckpt_path={checkpoint}", "trainer.max_steps=2", "solver.max_steps=4"]
    lines = [CommandLine("train.py", tuple(words)) for words in trained]
    return [
        *lines,
        CommandLine("train.py", (*MDEQ, "seed=1,2"), ("-m",)),
        CommandLine("train.py", (*MDEQ, "solver.tol=1e-3"), ("--cfg", "job")),
        CommandLine("train.py", tuple(resumed)),
        CommandLine("evaluate.py", (f"ckpt_path={checkpoint}", "trainer.limit_test_batches=1")),
    ]


ODD_VALUES = [
    "-1", "0", "1", "2", "-0.5", "0.5", "1.5", "nan", "inf", "-inf", "1e5", "1e12", "1000000000",
    "99999999999999999999", "1e-300", "true", "false", "null", "abc", "''", "[]", "{}", "[1]",
    "[1,2,3]", "[a,b]", "{a: 1}", "é", "'a b'", "1_000", "0x10", "None", "+3", "/nonexistent",
]  # fmt: skip
GRAMMAR = [
    "{key}=[{value}", "{key}={value}]", "{key}={{a: {value}", "{key}='{value}", "{key}",
    "={value}", "{key}=", "{key}=={value}", "{key}={value}={value}", "{key}:{value}", "{key} = 1",
    "~{key}", "~{key}={value}", "+{key}={value}", "++{key}={value}", "{key}={value},{value}",
    "{key}=glob(*)", "{key}=interval(0,1)", "{key}=choice(1,2)", "{key}=range(1,3)",
    "{key}=${{seed}}", "{key}=${{nothing}}", "{key}=${{oc.env:HOME}}", "{key}={value}#c",
    "{key}@package={value}", "{key}.deeper={value}", "hydra.{key}={value}", "--{key}={value}",
    "-{key}", "{key}=shuffle(1,2)", "{key}=int(1.5)", "{key}=str(1)", "{key}=\\{value}",
]  # fmt: skip
FLAGS = [
    ("--info",), ("--info", "config"), ("--cfg",), ("--cfg", "all"), ("--cfg", "hydra"),
    ("--config-dir", "/nonexistent"), ("--config-name", "nothing"), ("-p", "nothing"),
    ("--cfg", "job", "-p", "nothing"), ("-sc", "install=bash"), ("--resolve",), ("-m",),
    ("--version",), ("--unknown",), ("--experimental-rerun", "nothing"), ("-cp", "nothing"),
]  # fmt: skip


def mutated(lines: list[CommandLine], number: int) -> CommandLine:
    """The `number`-th mutation: one of the lines, changed in one place, sometimes in two."""
    draw = random.Random(number)
    line = draw.choice(lines)
    for _ in range(draw.choice((1, 1, 1, 2))):
        line = draw.choice(MUTATIONS)(line, draw)
    return line


def _misspelt(word: str, draw: random.Random) -> str:
    at = draw.randrange(max(len(word), 1))
    letter = draw.choice("abcdefghijklmnopqrstuvwxyz_.éA")
    changes = [word[:at] + word[at + 1 :], word[:at] + letter + word[at:]]
    changes += [
        word[:at] + letter + word[at + 1 :],
        word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
    ]
    return draw.choice(changes)


def _with_word(line: CommandLine, at: int, word: str) -> CommandLine:
    words = [*line.words]
    words[at : at + 1] = [word]
    return replace(line, words=tuple(words))


def _name(line: CommandLine, draw: random.Random) -> CommandLine:
    """A key with a slip of the finger in it."""
    at = draw.randrange(len(line.words))
    key, equals, value = line.words[at].partition("=")
    return _with_word(line, at, f"{_misspelt(key, draw)}{equals}{value}")


def _choice(line: CommandLine, draw: random.Random) -> CommandLine:
    """A value with a slip of the finger in it."""
    at = draw.randrange(len(line.words))
    key, equals, value = line.words[at].partition("=")
    return _with_word(line, at, f"{key}{equals}{_misspelt(value or 'a', draw)}")


def _typed_value(line: CommandLine, draw: random.Random) -> CommandLine:
    """An odd value for a key that is typed already; the number of steps stays small."""
    places = [at for at, word in enumerate(line.words) if not word.startswith("trainer.max_steps")]
    at = draw.choice(places)
    key = line.words[at].partition("=")[0]
    return _with_word(line, at, f"{key}={draw.choice(ODD_VALUES)}")


def _any_value(line: CommandLine, draw: random.Random) -> CommandLine:
    """An odd value for any setting there is."""
    return replace(line, words=(*line.words, f"{_any_key(line, draw)}={draw.choice(ODD_VALUES)}"))


def _fitting_value(line: CommandLine, draw: random.Random) -> CommandLine:
    """Another value of the same type for any setting: a classes' own checks see it."""
    key = _any_key(line, draw)
    present = OmegaConf.select(_config(line), key, throw_on_missing=False)
    return replace(line, words=(*line.words, f"{key}={_another(present, draw)}"))


def _another(value: object, draw: random.Random) -> str:
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int):
        return str(draw.choice((value * 2, value + 1, value - 1, 0, -1, 1, 7, 10**6, 10**9)))
    if isinstance(value, float):
        return repr(draw.choice((value * 2, value / 3, -value, 0.0, 1.0, 0.99, 1e-6, 30.0, 1e30)))
    if isinstance(value, str):
        return draw.choice(("min", "relative", "cpu", "32", "bf16-mixed", "val/loss", "x", "auto"))
    return draw.choice(("1", "0.5", "true", "[8]", "[8,8]", "[2,3,4]", "text", "32"))


def _grammar(line: CommandLine, draw: random.Random) -> CommandLine:
    """A form of Hydra's grammar, or none of it, around some key."""
    form = draw.choice(GRAMMAR)
    word = form.format(key=_any_key(line, draw), value=draw.choice(ODD_VALUES))
    return replace(line, words=(*line.words, word))


def _flag(line: CommandLine, draw: random.Random) -> CommandLine:
    """A flag of Hydra's, or one that nobody knows."""
    return replace(line, flags=(*line.flags, *draw.choice(FLAGS)))


MUTATIONS: list[Callable[[CommandLine, random.Random], CommandLine]] = [
    _name, _choice, _typed_value, _any_value, _any_value, _fitting_value, _fitting_value,
    _fitting_value, _grammar, _flag,
]  # fmt: skip
LONG = ("trainer.max_steps", "trainer.max_epochs", "trainer.limit_", "trainer.min_")
_configs: dict[tuple[str, ...], DictConfig] = {}


def _config(line: CommandLine) -> DictConfig:
    """What the line's choices compose to, or the default where one of them has been hit already."""
    chosen = tuple(
        w for w in line.words if w.startswith(("task=", "model=", "gradient=", "solver="))
    )
    if chosen not in _configs:
        try:
            _configs[chosen] = compose(chosen).config
        except UserError:
            _configs[chosen] = compose([]).config
    return _configs[chosen]


def _any_key(line: CommandLine, draw: random.Random) -> str:
    """A setting or a group of the line's configuration, but none that makes a run long."""
    config = _config(line)
    settings = [key for key, _ in flatten(OmegaConf.to_container(config, resolve=False))]
    keys = [key for key in [*settings, *config] if not key.endswith("_target_")]
    return draw.choice([key for key in keys if not key.startswith(LONG)])
