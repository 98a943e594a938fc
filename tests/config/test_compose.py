"""Composition: what recipes, estimators and the command line add to one another."""

from pathlib import Path

import pytest

from equipoise.config.about import choice_files, written_choices
from equipoise.config.compose import CONF, compose, storable, with_grid
from equipoise.errors import UserError

MODELS = written_choices("model", [CONF])
SEVERAL = {"model=ahead_pairs", "model=hdg"}
TEST_CONF = f"hydra.searchpath=[file://{Path(__file__).parents[1] / 'conf'}]"


def error(*typed: str) -> str:
    with pytest.raises(UserError) as caught:
        compose(typed)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_default_is_mdeq_on_digits_with_its_recipe():
    composition = compose([])
    choices = composition.choices
    assert (choices["task"], choices["model"]) == ("digits", "mdeq")
    assert (choices["solver"], choices["gradient"]) == ("anderson", "phantom")
    assert choices["recipe"] == "digits_mdeq"
    recipe = composition.config.recipe.solver.anderson
    assert composition.config.solver.max_steps == recipe.max_steps


def test_a_recipe_brings_its_solver_estimator_and_optimiser():
    composition = compose(["task=imagenet"])
    config = composition.config
    assert composition.choices["solver"] == "broyden"
    assert composition.choices["gradient"] == "exact"
    assert composition.choices["optimizer"] == "sgd"
    assert config.solver.max_steps == 26
    assert config.gradient.solver.max_steps == 27
    assert config.gradient.solver._target_.endswith("Broyden")
    assert config.optimizer.lr == 0.05
    assert config.trainer.max_epochs == 100
    phases = config.callbacks.gradient_schedule.phases
    assert phases[0].gradient.steps == 5
    assert phases[1].start == pytest.approx(510_000 / 1_000_900, abs=1e-4)


def test_what_was_typed_wins_over_the_recipe():
    composition = compose(["task=imagenet", "solver=anderson", "optimizer.lr=0.3", "gradient=jfb"])
    assert composition.choices["solver"] == "anderson"
    assert composition.choices["gradient"] == "jfb"
    assert composition.config.optimizer.lr == 0.3
    assert composition.config.solver.max_steps == 30  # the recipe's budget is Broyden's


def test_values_of_a_recipe_hold_for_their_choice_alone():
    config = compose(["task=imagenet", "optimizer=adam"]).config
    assert config.optimizer.lr == 1e-3
    assert "momentum" not in config.optimizer


def test_a_recipe_may_say_otherwise_for_a_size():
    published = compose(["task=cityscapes", "task.path=streets"])
    assert (published.choices["solver"], published.config.task.batch_size) == ("broyden", 12)
    tiny = compose(["task=cityscapes", "task.path=streets", "model.size=tiny"])
    assert (tiny.choices["solver"], tiny.choices["optimizer"]) == ("anderson", "adam")
    assert tiny.config.model.batch_norm_momentum == 0.1
    assert len(tiny.config.callbacks.gradient_schedule.phases) == 0
    assert "sizes" not in tiny.config.recipe
    typed = compose(
        ["task=cityscapes", "task.path=streets", "model.size=tiny", "solver=broyden",
         "task.batch_size=7"]
    )  # fmt: skip
    assert (typed.choices["solver"], typed.config.task.batch_size) == ("broyden", 7)


def test_an_estimator_brings_the_solver_that_it_needs():
    assert compose(["gradient=unrolled"]).choices["solver"] == "fixed_point"


def test_a_sweep_lays_its_lists_before_what_was_typed():
    typed = ["sweep=range_query_table", "model=ahead", "task.repeats=2"]
    lines = with_grid(typed)
    assert lines[-3:] == typed
    keys = [line.partition("=")[0] for line in lines[:-3]]
    assert keys == ["task.epsilon", "task.distribution"]
    assert with_grid(["seed=1,2"]) == ["seed=1,2"]
    with pytest.raises(UserError, match="did you mean range_query_table"):
        with_grid(["sweep=range_query_tabel"])


def test_phases_name_estimators_and_change_their_settings():
    phases = (
        "callbacks.gradient_schedule.phases="
        "[{start: 0, gradient: exact, settings: {solver: {max_steps: 3}}}, {start: 0.5}]"
    )
    config = compose([phases, "gradient.steps=7"]).config
    first, second = config.callbacks.gradient_schedule.phases
    assert first.gradient.solver.max_steps == 3
    assert first.gradient.solver.memory == 5
    assert second.gradient is None


def test_phases_of_the_configured_estimator_keep_its_settings():
    typed = [
        "gradient.steps=7",
        "callbacks.gradient_schedule.phases=[{start: 0, gradient: phantom}]",
    ]
    assert compose(typed).config.callbacks.gradient_schedule.phases[0].gradient.steps == 7


def test_typed_steps_are_the_length_of_the_run():
    assert compose(["trainer.max_steps=5000"]).config.trainer.max_epochs == -1
    assert compose(["trainer.max_steps=5", "trainer.max_epochs=2"]).config.trainer.max_epochs == 2


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("model=mdeqq", "did you mean mdeq?"),
        ("task=imagnet", "did you mean imagenet?"),
        ("gradient=exactt", "did you mean exact?"),
        ("modle=mdeq", "did you mean model?"),
        ("solver.max_step=5", "did you mean solver.max_steps?"),
        ("trainer.max_epoch=3", "did you mean trainer.max_epochs?"),
        ("+model.widht=3", "no setting 'model.widht'"),
        ("trainer.max_epochs=ten", "must be a whole number"),
        ("solver.max_steps=2.5", "must be a whole number"),
        ("solver.tol=abc", "must be a number"),
        ("solver.tol=true", "must be a number"),
        ("solver.trace=1", "must be true or false"),
        ("solver=anderson,broyden", "add -m"),
        ("seed=1,2", "add -m"),
        ("solver=none", "needs a solver"),
        ("solver=null", "has no choice"),
        ("solver=_common", "solver has no choice '_common'; choices: adjoint_broyden, anderson"),
        ("model=_explict", "model has no choice '_explict'; choices: ahead, ahead_pairs"),
        ("foo", "cannot read the command line"),
        ("callbacks.gradient_schedule.phases=[{start: 0, gradient: unroled}]", "mean unrolled?"),
        ("callbacks.gradient_schedule.phases=[{begin: 0}]", "looks like"),
        ("callbacks.gradient_schedule.phases=[{start: 0, gradint: jfb}]", "did you mean gradient"),
        ("experiment=nothing", "experiment has no choice"),
        ("~trainer", "what every run needs"),
        ("~seed", "what every run needs"),
        ("~task.objective", "what every run needs"),
        ("~task.batch_siz", "did you mean task.batch_size"),
        ("hydra.searchpath=mine", "must be a list"),
        ("hydra.searchpath=[file://nowhere]", "there is no folder nowhere"),
        ("hydra.searchpath=[s3://mine]", "s3:// cannot be read"),
    ],
)
def test_a_wrong_word_is_answered_by_the_nearest_right_one(typed, said):
    assert said in error(typed)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("callbacks.report=null", "callbacks.report.dirpath=x"),
        ("callbacks.report=null", "~callbacks.report.dirpath"),
        ("~callbacks.report", "callbacks.report.dirpath=x"),
        ("~callbacks.report", "~callbacks.report"),
        ("~callbacks.report", "callbacks.report=null"),
    ],
)
def test_what_an_earlier_word_removes_cannot_be_set(first, second):
    assert f"{second}: an earlier override removes" in error(first, second)


@pytest.mark.parametrize(
    "word", ["+callbacks.mine=3", "+callbacks.mine.deep=3", "+logger.mine={deep: 3}"]
)
def test_an_entry_of_ones_own_needs_a_class(word):
    assert ".mine has no class: add +" in error(word)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["model=resnet", "solver=broyden"], "model=resnet has no equilibrium layer"),
        (["model=resnet", "equilibrium.jitter=2"], "model=resnet has no equilibrium layer"),
        (["model=resnet", "gradient=jfb"], "model=resnet has no equilibrium layer"),
        (["model=resnet", "solver.max_steps=3"], "solver.max_steps"),
        (["gradient=unrolled", "solver=broyden"], "choose solver=fixed_point"),
        (["solver=adjoint_broyden", "solver.opa_every=5"], "leave solver.opa_every out here"),
        (
            ["model=resnet", "callbacks.gradient_schedule.phases=[{start: 0, gradient: jfb}]"],
            "no equilibrium layer",
        ),
    ],
)
def test_pairs_that_cannot_work_are_refused(typed, said):
    assert said in error(*typed)


def test_a_model_that_does_not_fit_the_task_is_refused_with_those_that_do():
    message = error(TEST_CONF, "task=tokens_for_tests", "model=mdeq")
    assert "model=mdeq takes image" in message
    assert "tasks for this model: cifar10, cityscapes, digit_scenes, digits" in message


def test_a_model_may_take_samples_of_several_kinds(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "versatile.yaml").write_text(
        "_target_: equipoise.models.Versatile\n"
        "about: {takes: [tokens, sentence_pairs], gives: [token_logits, translation_logits], "
        "equilibrium: false}\nsize: auto\n"
    )
    own = f"hydra.searchpath=[file://{tmp_path}]"
    none = ["model=versatile", "solver=none", "gradient=none"]
    assert compose([own, "task=copy_memory", *none]).choices["model"] == "versatile"
    message = error(own, "task=digits", *none)
    assert "takes tokens or sentence_pairs and gives token_logits, translation_logits" in message
    assert "copy_memory" in message.partition("tasks for this model: ")[2]
    assert "versatile" in error(own, "task=copy_memory", "model=mdeq").partition("this task: ")[2]


@pytest.mark.parametrize("task", ["digits", "cifar10", "imagenet"])
@pytest.mark.parametrize("model", ["mdeq", "resnet"])
def test_every_pair_composes(task, model):
    assert compose([f"task={task}", f"model={model}"]).config.model.size


@pytest.mark.parametrize(
    "typed",
    [f"{group.name}={file.stem}" for group in sorted(CONF.iterdir()) if group.is_dir()
     for file in choice_files(group)
     if group.name not in ("recipe",) and file.stem not in ("none", "linear_probe")],
)  # fmt: skip
def test_every_choice_composes(typed):
    group, _, choice = typed.partition("=")
    task = [f"task={task_for(choice)}"] if group == "model" else []
    if typed == "solver=lbfgs":
        task = ["task=hyperparameter"]
    if typed == "solver=conjugate_gradient":  # for adjoint systems alone
        typed, task = "solver@gradient.solver=conjugate_gradient", ["task=hyperparameter"]
    if group in ("encoder", "objective"):
        task = ["task=ssl_digits"]
    if task == ["task=range_query"]:
        task += ["task.domain=[8,8]" if typed in SEVERAL else "task.domain=8"]
    assert compose([typed, *task]).config


def task_for(model):
    """The first task of conf/ that takes what a model gives."""
    told = dict(written_choices("model", [CONF]))[model]["about"]
    tasks = [(name, node["about"]) for name, node in written_choices("task", [CONF])]
    return next(
        name
        for name, about in tasks
        if about["gives"] in told["takes"] and about["wants"] in told["gives"]
        and not about.get("of_checkpoint")
    )  # fmt: skip


def test_an_entry_is_left_out_or_added():
    assert "report" not in compose(["~callbacks.report"]).config.callbacks
    added = compose(["+callbacks.mine={_target_: my_package.Mine, word: hello}"])
    assert added.config.callbacks.mine.word == "hello"


def test_folders_of_ones_own_add_choices_also_from_a_package():
    for place in (f"file://{Path(__file__).parents[1] / 'conf'}", "pkg://tests.conf"):
        found = [f"hydra.searchpath=[{place}]", "task=tokens_for_tests", "model=deq_transformer"]
        with pytest.raises(UserError, match="task=tokens_for_tests gives tokens and wants logits"):
            compose(found)


def test_an_experiment_may_choose_otherwise_than_the_recipe():
    composition = compose(["experiment=cifar10_mdeq_on_two_cores"])
    assert composition.choices["solver"] == "anderson"
    assert composition.choices["gradient"] == "jfb"
    assert composition.config.solver.max_steps == 6
    assert len(composition.config.callbacks.gradient_schedule.phases) == 0


@pytest.mark.parametrize("place", ["model=mdeq model", "task=ssl_digits model.encoder"])
def test_a_checkpoint_does_not_need_the_backbone_that_it_started_from(place):
    *choice, node = place.split()
    stored = storable(compose([*choice, f"{node}.backbone_ckpt=gone.ckpt"]).config)
    assert "gone.ckpt" not in str(stored)


def test_several_choices_of_a_group_are_kept_by_name() -> None:
    composition = compose(["callbacks=[default,warm_start]", "logger=[csv,tensorboard]"])
    assert composition.choices["callbacks"] == "default,warm_start"
    assert composition.choices["logger"] == "csv,tensorboard"
    assert compose(["callbacks=[]"]).choices["callbacks"] == ""
    assert compose([]).choices["callbacks"] == "default"


def test_what_a_group_shares_and_what_an_editor_hides_are_no_choices(tmp_path: Path) -> None:
    for name in ("mine.yaml", "_common.yaml", "._mine.yaml", "notes.txt"):
        (tmp_path / name).write_text("max_steps: 3\n")
    (tmp_path / ".#mine.yaml").symlink_to("user@host.1")  # the lock of a file that is edited
    assert [file.name for file in choice_files(tmp_path)] == ["mine.yaml"]
