"""Every form of Hydra's grammar has the effect that Hydra gives it, or is refused in a sentence."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from equipoise.commands.arguments import drawn
from equipoise.commands.jobs import globs, jobs, of_sweeper, without_none, written_out
from equipoise.config.compose import compose
from equipoise.config.hydra import hydra_of_our_own, parse
from equipoise.config.overrides import set_value
from equipoise.config.refusals import FUNCTIONS
from equipoise.errors import UserError

READ_ALIKE = r"""
seed=3|seed=+3|seed=1_000|seed=0x10|seed=int(3.2)|seed=int('3')|seed=int(value=3)|seed= 1
solver.tol=1e-3|solver.tol=.5|solver.tol=5.|solver.tol=float(1)|solver.tol=inf|solver.tol=nan
solver.trace=bool(1)|solver.trace=bool('true')|solver.trace=tRue|solver.trace='true'
run_dir=str(3)|run_dir=str([1,2])|run_dir=str({a:1})|run_dir=|run_dir=null|run_dir=Null
run_dir='null'|run_dir=a\,b|run_dir=a\ b|run_dir=a b|run_dir=  a  |run_dir=a\=b|run_dir=a\(b\)
run_dir='a\'b'|run_dir="a\"b"|run_dir="a'b"|run_dir='a\\'|run_dir=\\a|run_dir=C:\x|run_dir=C:/x
run_dir=a:b|run_dir=a@b|run_dir=a?b|run_dir=a*b|run_dir=a%b|run_dir=a$b|run_dir='~/x'|run_dir='é'
run_dir=${seed}|run_dir=runs_${seed}_x|run_dir='runs ${seed} x'|run_dir=\${seed}|run_dir='\${seed}'
run_dir=${oc.env:NOT_SET,fallback}|run_dir='${oc.env:NOT_SET,"fall back"}'|seed=${task.batch_size}
trust=[]|trust=[a,b]|trust=['a b', c]|trust=["a,b",'c']|trust=[a,[b,{c: 1}]]|trust=sort([b,a])
trust=str([1,2])|trust=int([1.5,2])|trust=[${oc.env:HOME}]|model.channels=[8, 8]|seed=sort(1)
equilibrium={jitter:1}|equilibrium={jitter: 1, random_start: 0.5}|equilibrium=null|++seed=3
callbacks.report={dirpath: x}|callbacks.report=null|~callbacks.report|~callbacks.report=null
~callbacks.report.dirpath|~solver.tol|++callbacks.report.dirpath=y|+callbacks.mine={}
+callbacks.mine={_target_: a.B, x: {y: [1, null]}, z: 'q, r'}|+callbacks.mine._target_=a.B
+callbacks.mine={a b: 1, a: 2, a: 3}|++callbacks.mine.deep.x=1|+callbacks.mine=null
""".strip().replace("\n", "|").split("|")  # fmt: skip

SWEPT_ALIKE = r"""
seed=1,2|seed=1, 2|seed=choice(1,2)|seed=choice (1,2)|seed=choice(1)|seed=choice([1,2])
seed=range(3)|seed=range(1,4)|seed=range(4,1,-1)|seed=range(1,4,step=2)|seed=range(start=1,stop=4)
seed=int(1.2,2.7)|seed=int(range(1.5,4))|solver.tol=range(0.1,0.4,0.1)|solver.tol=float(range(1,4))
solver.tol=float(1,2)|seed=tag(a,choice(1,2))|seed=tag(a,b,range(3))|seed=sort(3,1,2)|seed=sort(3,1,2,reverse=true)
seed=sort(choice(3,1,2))|seed=sort(range(3,0,-1))|seed=sort(range(0,3),reverse=true)|trust=[a],[b]
run_dir=str(1,2)|solver.trace=bool(0,1)|solver.trace=true,false|seed=1,1|seed=1,'2'|seed="1","2"
seed=1,null|run_dir=choice(a b,'c d','e,f')|model.channels=choice([8,8],[16,16])|seed=1_000,2_000
equilibrium={jitter:0},{jitter:1}|+callbacks.mine={_target_: a.B, x: 1},{_target_: a.B, x: 2}
++callbacks.report.dirpath=a,b|seed=${oc.env:HOME},2|seed=1,${task.batch_size}|solver=glob(*broyden)
solver=glob([a*,b*])|solver=glob([a*,b*],exclude=*broyden)|solver=glob(include=b*)|solver=glob('b*')
solver@eval_solver=glob(*broyden)|callbacks=[default],[default,gradient_fidelity]|logger=csv,none
seed=1 seed=2,3|seed=2,3 seed=1|seed=1,2 seed=2,3|solver=broyden,anderson seed=1 solver=fixed_point
""".strip().replace("\n", "|").split("|")  # fmt: skip


@pytest.fixture(scope="module")
def loaded() -> Iterator[DictConfig]:
    """Hydra's own composition of the defaults, while Hydra is initialised."""
    with hydra_of_our_own():
        yield hydra_compose("train", ["task=digits"])


@pytest.mark.parametrize("word", READ_ALIKE)
def test_a_word_changes_what_hydra_changes(word: str, loaded: DictConfig) -> None:
    ours, hydras = copy.deepcopy(loaded), copy.deepcopy(loaded)
    (override,) = parse([word])
    set_value(ours, override)
    ConfigLoaderImpl._apply_overrides_to_config(
        OverridesParser.create().parse_overrides([word]), hydras
    )
    assert repr(OmegaConf.to_container(ours)) == repr(OmegaConf.to_container(hydras))


def of_hydras_sweeper(words: list[str]) -> list[list[str]]:
    loader = GlobalHydra.instance().config_loader()
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(words)
    (batch,) = BasicSweeper.split_arguments(overrides, None)
    return batch


def read(job_words: list[list[str]]) -> list[list[tuple[str, str]]]:
    return [[(o.get_key_element(), repr(o.value())) for o in parse(job)] for job in job_words]


@pytest.mark.parametrize("line", SWEPT_ALIKE)
def test_a_sweep_has_the_jobs_of_hydra(line: str, loaded: DictConfig) -> None:
    words = line.replace(" s", "\ns").split("\n")  # several words, of which each begins with an s
    assert read(jobs(written_out(words))) == read(of_hydras_sweeper(words))


@pytest.mark.parametrize("word", ["seed=shuffle(1,2,3)", "seed=shuffle(choice(1,2,3))",
                                  "seed=shuffle(range(5))"])  # fmt: skip
def test_a_shuffled_sweep_is_drawn_once(word: str, loaded: DictConfig) -> None:
    out = written_out([word])
    assert sorted(read(jobs(out))) == sorted(read(of_hydras_sweeper([word])))
    assert jobs(out) == jobs(out)


def test_a_shuffled_list_is_drawn_once() -> None:
    (word,) = drawn(["trust=shuffle([a,b,c,d,e,f,'g h'])"])
    (override,) = parse([word])
    assert sorted(override.value()) == ["a", "b", "c", "d", "e", "f", "g h"]
    assert drawn(["seed=shuffle(1,2)", "run_dir=shuffle"]) == [
        "seed=shuffle(1,2)",
        "run_dir=shuffle",
    ]


def test_a_glob_takes_no_file_that_is_no_choice(loaded: DictConfig) -> None:
    ours = [job[0] for job in jobs(written_out(["solver=glob(*)"]))]
    hydras = [job[0] for job in of_hydras_sweeper(["solver=glob(*)"])]
    assert set(hydras) - set(ours) == {"solver=_common"}
    assert set(ours) < set(hydras)


def test_every_function_of_the_grammar_is_tried() -> None:
    tried = " ".join([*READ_ALIKE, *SWEPT_ALIKE, *(word for word, _ in UNREADABLE), "shuffle("])
    assert not [name for name in FUNCTIONS if f"{name}(" not in tried]


UNREADABLE = [
    ("seed=int(a)", "ValueError while evaluating 'int(a)'"),
    ("seed=int()", "No positional args or value specified"),
    ("solver.trace=bool(x)", "Cannot cast 'x' to bool"),
    ("seed=choice()", "empty choice is not legal"),
    ("seed=choice(choice(1,2))", "nesting choices is not supported"),
    ("seed=choice(1,2", "no viable alternative"),
    ("seed=range(a)", "mismatch type argument start"),
    ("seed=interval(1)", "missing a required argument: 'end'"),
    ("seed=tag(a,1)", "mismatch type argument"),
    ("seed=sort(3,a)", "not supported between instances"),
    ("solver=shuffle(glob(*))", "mismatch type argument"),
    ("run_dir=json_str({a:1})", "there is no function json_str; did you mean str?; quote"),
    ("callbacks=extend_list(a)", "there is no function extend_list"),
    ("run_dir=a(b)", "\"run_dir='a(b)'\""),
    ("run_dir=a=b", "quote a value with =: \"run_dir='a=b'\""),
    ("run_dir='a", "close the quote: '"),
    ("run_dir=a'b", r"""quote a value with ': "run_dir='a\\'b'"""),
    ("run_dir=~/x", "quote a value with ~"),
    ("run_dir=a\nb", r"at 'run_dir=a\nb'; put a value with line breaks in quotes"),
    ("run_dir=${", r"""quote a value with {: "run_dir='\\\${'"""),
    ("seed=${oc.decode:${oc.env:X}}", r"""quote a value with { }: "seed='\${oc.decode:\${oc"""),
    ("trust=[a", "quote a value with [ (unless a list or mapping is meant)"),
    ('+callbacks.mine={"a": 1}', "quote a value with {"),
    ("seed=1,", "quote a value with ,"),
    (".seed=1", "'.seed' is no name"),
    ("seed.=1", "'seed.' is no name"),
    ("task..path=x", "'task..path' is no name"),
    ("/model=mdeq", "'/model' is no name"),
    ("-seed=1", "'-seed' is no name"),
    ("trust[0]=a", "'trust[0]' is no name"),
    ("solver@:eval_solver=broyden", "'solver@:eval_solver' is no name"),
    ("'seed=3'", "name=value"),
    ("seed", "a setting has the form name=value"),
    ("seed =1", "a setting has the form name=value"),
    ("=1", "'=1' names nothing"),
    ("~", "'~' names nothing"),
    ("+=x", "'+=x' names nothing"),
    ("+", "a setting has the form name=value"),
]


@pytest.mark.parametrize(("word", "said"), UNREADABLE)
def test_a_word_that_cannot_be_read_is_refused(word: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse([word])
    message = str(caught.value)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("word", [word for word, said in UNREADABLE if "quote a value" in said])
def test_what_is_proposed_can_be_read(word: str) -> None:
    """The proposal stands in the shell's double quotes."""
    with pytest.raises(UserError) as caught:
        parse([word])
    start, value = word.split("=", 1)
    proposed = str(caught.value)[str(caught.value).rindex(f'"{start}=') :]
    (typed,) = shlex.split(proposed.replace(r"\$", "$"))  # a shell drops this \, shlex does not
    (override,) = parse([typed])
    read_as: Any = override.value()
    assert read_as in (value.strip("'"), value.replace("${", r"\${"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra=1"], "cannot compose the configuration with hydra=1: a group takes the name"),
        (["hydra/launcher=null"], "a group takes the name of a choice"),
        (["hydra.sweeper.params={seed: '1,2'}"], "cannot compose the configuration with hydra.sw"),
        (["hydra/sweeper=none_such"], "hydra/sweeper has no choice none_such; a plugin"),
        (["hydra.nothing=1"], "there is nothing called hydra.nothing here; +hydra.nothing=..."),
        (["+solver=broyden"], "solver is chosen already: leave out the +"),
        (["++solver=broyden"], "type solver=broyden: a choice needs no ++"),
        (["solver@other=broyden"], "nothing called solver@other here; +solver@other=..."),
        (["seed@x=3"], "seed is not a group; only a group can be put under another key"),
        (["solver=${oc.env:HOME}"], "a choice must be typed and cannot refer to another setting"),
        (["~nothing"], "no setting 'nothing'"),
        (["~seed"], "removes what every run needs"),
        (["~solver.tol=1"], "solver.tol is 0.001; to remove it"),
        (["+seed=3"], "seed exists already; leave out the +"),
        (["task.batch_size='64'"], "task.batch_size='64' must be a whole number"),
        (["seed=${oc.env:SEVEN}"], "seed='7' is not of type int"),
        (["run_dir=${oc.env:NOT_SET}"], "Environment variable 'NOT_SET' not found"),
        (["run_dir='a${'"], "run_dir='a${': ${ begins a reference to another setting"),
        (["+callbacks.mine={a: ['${x']}"], "${ begins a reference to another setting"),
        (["run_dir=${hydra:job.name}"], "is filled in for Hydra's own settings alone"),
        (["run_dir=${nowhere}"], "Interpolation key 'nowhere' not found"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_composed_is_refused(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEVEN", "7")
    with pytest.raises(UserError) as caught:
        compose(words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=interval(1,2)"], "or add a search that draws them, such as sweep=optuna"),
        (["seed=int(interval(1,2))"], "a grid needs values, not an interval"),
        (["seed=range(1,1)"], "lists no values"),
        (["solver=glob(_*)"], "lists no values"),
        (["seed=shuffle()"], "lists no values"),
        (["seed=range(1,2,0)"], "must not be zero"),
        (["seed=range(1,3),5"], "a sweep cannot contain another one"),
        (["seed=glob(*)"], "glob lists the choices of a group, but seed is a setting"),
        (["hydra.sweep.dir=a,b"], "Hydra's own settings are those of the whole multirun"),
        (["hydra/sweeper=basic,optuna"], "Hydra's own settings are those of the whole multirun"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_swept_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        written_out(words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


NO = UserError("no")


def test_a_glob_leaves_out_none_where_it_cannot_go_with_the_rest() -> None:
    found = globs(["gradient=glob(*)", "seed=1"])
    lines = ["gradient=exact,none", "seed=1"]
    kept = without_none(lines, found, [("gradient=exact",)], {("gradient=none",): NO})
    assert kept == ["gradient=exact", "seed=1"]
    assert without_none(lines, found, [("gradient=exact",), ("gradient=none",)], {}) == lines


@pytest.mark.parametrize(
    ("word", "works", "fails", "said"),
    [
        (
            "s=glob(*)",
            "abcdefghijk",
            "z",
            "z cannot be combined with the rest (no); type 's=glob(*,exclude=z)'",
        ),
        ("s=glob(*,exclude=x)", "abcdefghijklm", "no", "type 's=glob(*,exclude=[x,n,o])'"),
        ("s=glob([a*,b])", "b", "ac", "a, c cannot be combined with the rest (no); type 's=b'"),
        (
            "s=glob(*)",
            "a",
            "bcdefghij",
            "b, c, d, e, f, g and 3 more cannot be combined with the rest",
        ),
        ("s=glob(*)", "", "ab", "no"),
        ("t=glob(*)", "a", "b", "no"),
    ],
)
def test_other_choices_of_a_glob_that_cannot_go_are_named_with_the_word_to_type(
    word: str, works: str, fails: str, said: str
) -> None:
    accepted = [(f"s={name}",) for name in works]
    refused = {(f"s={name}",): NO for name in fails}
    with pytest.raises(UserError) as caught:
        without_none(["s=a,b"], globs([word]), accepted, refused)
    assert said in str(caught.value)


def test_what_an_experiment_lets_hydras_sweeper_sweep_is_swept(tmp_path: Any) -> None:
    (tmp_path / "experiment").mkdir()
    content = "# @package _global_\nhydra: {sweeper: {params: {seed: '1,2', seed2: x}}}\n"
    (tmp_path / "experiment" / "swept.yaml").write_text(content)
    words = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=swept"]
    assert of_sweeper(words) == ["seed=1,2", "seed2=x"]
    assert of_sweeper([*words, "seed=3"]) == ["seed2=x"]
    assert of_sweeper(["seed=3"]) == []
