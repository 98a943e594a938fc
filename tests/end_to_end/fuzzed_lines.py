"""Valid command lines of every kind, each with one or two words changed; drawn from a seed.

They are only composed and checked (`--cfg job`), or read, and the forms are those of the whole
grammar; `mutated_lines` draws lines that are run.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from equipoise.config.compose import CONF
from tests.end_to_end.mutated_lines import (
    FLAGS,
    GRAMMAR,
    MUTATIONS,
    ODD_VALUES,
    CommandLine,
    _any_key,
    _misspelt,
)

TRAIN, EVALUATE, MODULE = "train.py", "evaluate.py", "src/equipoise/__main__.py"
SHOW = ("--cfg", "job")
GROUPS = sorted(
    folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "recipe"
)
CHOICES = {group: sorted(f.stem for f in (CONF / group).glob("*.yaml")) for group in GROUPS}
VALUES = [
    *ODD_VALUES, "9" * 400, "-" + "9" * 60, "1e400", "1e-400", "0.1e", "1e+5", "\u0661\u0662",
    "\uff11\uff12", "½", "∞",
    "'é'", "'日本'", '"\\u202e"', "'🙂'", "'a\tb'", "'null'", "'true'", "'1'", "'[1]'", "\"a'b\"",
    "'a\\'b'", "a\\,b", "[[1],[2]]", "[1,[2,{a: 3}]]", "{a: {b: [1]}}", "{a: 1, a: 2}", "{1: 2}",
    "[null]", "[true]", "['a,b']", "[é]", "NaN", "NULL", "True", "yes", "on", "0o7", "1:30", "~",
    "x" * 3000, "[" * 60 + "]" * 60, "${seed}", "${solver.tol}", "'${seed}'", "\\${seed}", "${",
    "$",
    "${oc.env:HOME}", "${oc.env:NOT_SET_AT_ALL}", "${oc.select:nothing,1}", "${oc.decode:'1'}",
    "${hydra:job.name}", "${nothing.here}", "${.x}", "${..x}", "???", "1 2", " 1", "1 ", "#", "a#b",
    "%s", "{0}", "$(date)", "`date`", ";", "&", "|", "<", "*", "../..", "/dev/null", "\\", "\\\\",
]  # fmt: skip
FORMS = [
    *GRAMMAR, "{key}=choice({value})", "{key}=choice({value},{value})", "{key}=range(3)",
    "{key}=range(0)",
    "{key}=range(1,2,0)", "{key}=range(1,1000000000)", "{key}=glob([a*,b*],exclude=broyden)",
    "{key}=glob('**')", "{key}=sort(3,1,2)", "{key}=sort([3,1,2])", "{key}=shuffle([1,2])",
    "{key}=tag(t,choice(1,2))", "{key}=tag({value})", "{key}=float(1)", "{key}=float({value})",
    "{key}=int({value})", "{key}=bool({value})", "{key}=str({value})", "{key}=int(choice(1,2))",
    "{key}=json_str({value})", "{key}=extend_list({value})", "{key}=eval(1)", "{key}=int(",
    "{key}=)",
    "{key}@{value}={value}", "{key}@a.b={value}", "+{key}@a.b={value}", "{key}@_global_={value}",
    "{key}@:x={value}", "~{key}@a", "~~{key}", "+++{key}={value}", "+{key}", "++{key}",
    "+~{key}={value}",
    "{key}[0]={value}", "{key}.0={value}", ".{key}={value}", "{key}.={value}", "/{key}={value}",
    "{key}/x={value}", "{key}='{value}'", '{key}="{value}"', "'{key}={value}'", "{key}=[{value}]",
    "{key}={{a: {value}}}", "{key}={{_target_: {value}}}", "{key}._target_={value}",
    "+{key}.x={value}", "++{key}.x={value}", "+{key}._target_=os.system", "hydra/{key}={value}",
    "hydra.sweeper.params.{key}={value}", "{key}=\n{value}", "{key}\n={value}", "{key}={value}\x00",
    "{key} ={value}", " {key}={value}", "{key}= {value} ", "é{key}={value}", "{key}=${{{key}}}",
    "{key}=${{oc.env:HOME,{value}}}", "{key}=${{task.${{seed}}}}", "{key}=interval(0,1),2",
]  # fmt: skip


@dataclass(frozen=True)
class Fuzzed:
    """A line, and the valid one that it was made from."""

    number: int
    original: CommandLine
    line: CommandLine

    @property
    def changed(self) -> list[str]:
        """The words of either line that the other one does not have."""
        before, after = Counter(self.original.words), Counter(self.line.words)
        return list(((before - after) + (after - before)).elements())


def settings_lines(lines: Sequence[CommandLine], checkpoint: str) -> list[CommandLine]:
    """The lines of train.py and evaluate.py, to be shown; those of a multirun are planned."""
    sweeps = [
        ["seed=1,2", "solver=anderson,broyden"], ["gradient=glob(*)"], ["seed=range(1,4)"],
        ["solver.tol=choice(1e-2,1e-3)", "task=digits"], ["sweep=hyperparameter_grid"],
        ["model.channels=[8,8],[16,16]", "seed=sort(3,1,2)"],
    ]  # fmt: skip
    evaluated = [
        [], ["solver=broyden", "solver.max_steps=6"], ["trainer.limit_test_batches=1", "trust=[a]"],
        ["anytime=curve"], ["task.batch_size=8", "run_dir=here"],
    ]  # fmt: skip
    shown = [
        CommandLine(line.script, line.words, SHOW)
        for line in lines
        if line.script == TRAIN and not line.flags
    ]
    planned = [CommandLine(TRAIN, tuple(words), ("-m",)) for words in sweeps]
    stored = (f"ckpt_path={checkpoint}",)
    return [
        *shown,
        *planned,
        *(CommandLine(EVALUATE, (*stored, *words), SHOW) for words in evaluated),
        CommandLine(MODULE, ("train", "task=digits", "solver=broyden", *SHOW)),
    ]


def command_lines(checkpoint: str, run: str) -> list[CommandLine]:
    """Lines of the other commands, all quick on one small checkpoint of the digits."""
    words = [
        ["list"], ["list", "solvers"], ["list", "tasks", "models"], ["--version"], ["--help"],
        ["export", checkpoint, "exported", "licence=mit", "name=mine"],
        ["export", checkpoint, "exported", "format=safetensors", "overwrite"],
        ["push", checkpoint, "./published/", "licence=mit", "private"],
        ["predict", run, "out.csv", "split=test", "batch_size=64", "top=2"],
        ["predict", f"ckpt_path={checkpoint}", "output=out.csv", "split=val", "device=cpu"],
        ["generate", f"ckpt_path={checkpoint}", "prompt=a", "length=3", "temperature=0.5",
        "greedy"],
        ["translate", f"ckpt_path={checkpoint}", "beam=2", "length_penalty=0.6", "batch_size=2"],
        ["compare", run, "output=page", "over=seed"], ["compare", run, run, "overwrite"],
        ["query", run, "age in [30, 40)", "--trust", "a"], ["ensemble", "a.csv", "b.csv"],
        ["import-weights", "model.pth", "yaml=model.yaml"], ["make-nmr", "--help"],
        ["profile", "steps=0", "task=digits"], ["dashboard", "--help"],
        ["convert-multimodal", "a.pkl", "b.safetensors"],
    ]  # fmt: skip
    return [CommandLine(MODULE, tuple(line)) for line in words]


def fuzzed(lines: Sequence[CommandLine], others: Sequence[CommandLine], number: int) -> Fuzzed:
    """The `number`-th line: most from `lines`, which have key=value, the rest from `others`."""
    draw = random.Random(f"fuzzed {number}")
    of_settings = draw.random() < 0.85
    original = draw.choice(lines if of_settings else others)
    line = original
    for _ in range(draw.choice((1, 1, 1, 2))):
        if line.words:  # the change before may have taken away the only one
            line = draw.choice(OF_SETTINGS if of_settings else OF_COMMANDS)(line, draw)
    return Fuzzed(number, original, line)


def _form(line: CommandLine, draw: random.Random) -> CommandLine:
    """A form of the grammar around any setting or group."""
    key = draw.choice((_any_key(line, draw), draw.choice(GROUPS)))
    word = draw.choice(FORMS).format(key=key, value=draw.choice(VALUES))
    return _placed(line, word, draw)


def _value(line: CommandLine, draw: random.Random) -> CommandLine:
    """An odd value for any setting."""
    return _placed(line, f"{_any_key(line, draw)}={draw.choice(VALUES)}", draw)


def _other_choice(line: CommandLine, draw: random.Random) -> CommandLine:
    """Another choice of a group: that fits or not, misspelt, several, or none."""
    group = draw.choice(GROUPS)
    names = CHOICES[group]
    one, other = draw.choice(names), draw.choice(names)
    name = draw.choice((one, one, one, _misspelt(one, draw), f"[{one},{other}]", f"[{one}]", "[]",
                        f"{one},{other}", "null", one.upper(), f"{one}.yaml",
                        f"../{one}"))  # fmt: skip
    package = draw.choice(("", "", "", "", "@eval_solver", "@gradient.solver", "@x"))
    sign = draw.choice(("", "", "", "+", "++", "~"))
    return _placed(line, f"{sign}{group}{package}={name}", draw)


def _twice(line: CommandLine, draw: random.Random) -> CommandLine:
    """A word once more, with another value."""
    if not line.words:
        return line
    key, equals, _ = draw.choice(line.words).partition("=")
    return _placed(line, f"{key}{equals}{draw.choice(VALUES)}", draw)


def _lost(line: CommandLine, draw: random.Random) -> CommandLine:
    """A word less, or a part of one."""
    if not line.words:
        return line
    at = draw.randrange(len(line.words))
    word = line.words[at]
    part = draw.choice(([], [word.partition("=")[0]], [word[: draw.randrange(1, len(word) + 1)]]))
    return replace(line, words=(*line.words[:at], *part, *line.words[at + 1 :]))


def _placed(line: CommandLine, word: str, draw: random.Random) -> CommandLine:
    """A further word, in any place behind the first ones."""
    first = 1 if line.script == MODULE else 0
    at = draw.randint(first, max(first, len(line.words)))
    return replace(line, words=(*line.words[:at], word, *line.words[at:]))


def _flag(line: CommandLine, draw: random.Random) -> CommandLine:
    return replace(line, flags=(*line.flags, *draw.choice(FLAGS)))


def _command_word(line: CommandLine, draw: random.Random) -> CommandLine:
    """A word of a command with a slip, another value, or a further word."""
    at = draw.randrange(len(line.words))
    word = line.words[at]
    key, equals, _ = word.partition("=")
    value = draw.choice(VALUES)
    new = draw.choice((_misspelt(word, draw), f"{key}={value}", value, f"--{key}", f"-{key}",
                       f"{_misspelt(key, draw)}{equals}{value}", "", "--help", "--",
                       "-"))  # fmt: skip
    keep = (word,) if draw.random() < 0.3 else ()
    return replace(line, words=(*line.words[:at], *keep, new, *line.words[at + 1 :]))


def _written_otherwise(line: CommandLine, draw: random.Random) -> CommandLine:
    """A word of the line in another form that means the same."""
    places = [at for at, word in enumerate(line.words) if "=" in word and word[0].isalpha()]
    if not places:
        return line
    at = draw.choice(places)
    key, _, value = line.words[at].partition("=")
    listed = "," in value or value[:1] in "[{'" or "@" in key or key in GROUPS
    ways = [f"{key}= {value} "] if listed else [f"++{key}={value}", f"{key}={value} "]
    return replace(line, words=(*line.words[:at], draw.choice(ways), *line.words[at + 1 :]))


def _near_value(line: CommandLine, draw: random.Random) -> CommandLine:
    """A value of the right kind for any setting that is a number or a switch."""
    number = draw.choice(
        ("1", "2", "3", "0.5", "0.1", "1e-3", "4", "8", "16", "true", "false", "null")
    )
    sign = draw.choice(("", "", "", "++"))
    return _placed(line, f"{sign}{_any_key(line, draw)}={number}", draw)


def _fitting_choice(line: CommandLine, draw: random.Random) -> CommandLine:
    """A choice of a group that most lines can do with."""
    group = draw.choice(("solver", "gradient", "optimizer", "schedule", "regularizer", "logger",
                         "callbacks", "strategy", "solver@eval_solver", "debug"))  # fmt: skip
    name = draw.choice([n for n in CHOICES[group.partition("@")[0]] if n != "none"])
    return _placed(line, f"{group}={name}", draw)


_slips = MUTATIONS[:3]  # in a name, in a value; an odd value
_fitting_value = MUTATIONS[5]
OF_SETTINGS: list[Callable[[CommandLine, random.Random], CommandLine]] = [
    *_slips, _form, _form, _form, _value, _value, _other_choice, _twice, _lost, _flag,
    _fitting_value, _fitting_value, _near_value, _near_value, _near_value, _near_value,
    _fitting_choice, _fitting_choice, _fitting_choice, _written_otherwise, _written_otherwise,
]  # fmt: skip
OF_COMMANDS = [_command_word, _command_word, _command_word, _lost, _twice]
