"""Names that users know from elsewhere or from an earlier version, and their names here.

They come from torchdeq, from the code of the DEQ papers (locuslab/deq, locuslab/mdeq), from
Lightning's earlier versions, and from other training scripts.
"""

from __future__ import annotations

from collections.abc import Iterable

from equipoise.errors import nearest

SETTINGS = {
    # torchdeq and locuslab/deq: f_ is the forward solve, b_ the backward one
    "f_solver": "solver=anderson or another choice of solver",
    "b_solver": "gradient=exact solver@gradient.solver=anderson",
    "f_thres": "solver.max_steps",
    "b_thres": "gradient.solver.max_steps, with gradient=exact",
    "f_max_iter": "solver.max_steps",
    "b_max_iter": "gradient.solver.max_steps, with gradient=exact",
    "f_tol": "solver.tol",
    "b_tol": "gradient.solver.tol, with gradient=exact",
    "f_eps": "solver.tol",
    "b_eps": "gradient.solver.tol, with gradient=exact",
    "f_stop_mode": "solver.stop",
    "stop_mode": "solver.stop",
    "eval_f_thres": "eval_solver.max_steps, with solver@eval_solver=anderson",
    "eval_f_max_iter": "eval_solver.max_steps, with solver@eval_solver=anderson",
    "eval_factor": "eval_solver.max_steps, with solver@eval_solver=anderson",
    "rand_f_thres_delta": "equilibrium.jitter",
    "max_iter": "solver.max_steps",
    "max_iters": "solver.max_steps",
    "n_iter": "solver.max_steps",
    "threshold": "solver.max_steps, and solver.tol for the residual",
    "lam": "solver.ridge, with solver=anderson",
    "m": "solver.memory",
    "ift": "gradient=exact",
    "hook_ift": "gradient=exact",
    "tau": "gradient.damping, with gradient=phantom",
    "pretrain_step": "callbacks.gradient_schedule.phases",
    "pretrain_steps": "callbacks.gradient_schedule.phases",
    "jac_loss_weight": "regularizer.weight, with regularizer=jacobian",
    "jac_loss_freq": "regularizer.probability, with regularizer=jacobian",
    "jac_start_step": "regularizer.warmup, with regularizer=jacobian",
    "wnorm": "model.weight_norm",
    # earlier versions of Lightning
    "gpus": "trainer.devices, with strategy=gpu or strategy=ddp",
    "num_gpus": "trainer.devices, with strategy=gpu or strategy=ddp",
    "num_processes": "trainer.devices",
    "resume_from_checkpoint": "ckpt_path",
    "checkpoint_callback": "trainer.enable_checkpointing",
    "progress_bar_refresh_rate": "trainer.enable_progress_bar",
    "weights_summary": "trainer.enable_model_summary",
    "terminate_on_nan": "callbacks.divergence_guard",
    "auto_lr_find": "callbacks=[default,learning_rate_finder]",
    "stochastic_weight_avg": "callbacks=[default,swa]",
    "amp": "trainer.precision",
    "fp16": "trainer.precision=16-mixed",
    "bf16": "trainer.precision=bf16-mixed",
    # other scripts of training
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs",
    "iterations": "trainer.max_steps",
    "learning_rate": "optimizer.lr",
    "base_lr": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "bs": "task.batch_size",
    "train_batch_size": "task.batch_size",
    "val_batch_size": "task.eval_batch_size",
    "test_batch_size": "task.eval_batch_size",
    "clip": "trainer.gradient_clip_val",
    "grad_clip": "trainer.gradient_clip_val",
    "workers": "task.num_workers",
    "data_dir": "task.path",
    "data_path": "task.path",
    "data_root": "task.path",
    "dataset": "task=digits or another choice of task",
    "data": "task=digits or another choice of task",
    "arch": "model=mdeq or another choice of model",
    "network": "model=mdeq or another choice of model",
    "scheduler": "schedule=cosine or another choice of schedule",
    "lr_scheduler": "schedule=cosine or another choice of schedule",
    "backward": "gradient=phantom or another choice of gradient",
    "regulariser": "regularizer=jacobian",
    "checkpoint": "ckpt_path",
    "resume_from": "ckpt_path",
    "pretrained": "init_from",
    "output_dir": "run_dir",
    "save_dir": "run_dir",
    "log_dir": "run_dir",
    "device": "trainer.accelerator",
    "compact_rows": "solver.compact_at",
}
"""What to type instead of a setting that does not exist, by its last word."""

CHOICES = {
    "solver": {
        "picard": "fixed_point", "fixed_point_iter": "fixed_point", "simple_fixed_point_iter":
        "fixed_point", "naive": "fixed_point", "forward": "fixed_point", "newton": "newton_krylov",
        "fp": "fixed_point", "aa": "anderson",
    },
    "gradient": {
        "ift": "exact", "implicit": "exact", "idiff": "exact", "jacobian_free": "jfb",
        "one_step": "jfb", "backprop": "unrolled", "bptt": "unrolled", "pg": "phantom",
        "rdeq": "reversible", "revdeq": "reversible",
    },
    "regularizer": {"jac": "jacobian", "jr": "jacobian"},
    "callbacks": {"learning_rate_monitor": "learning_rate", "lr_finder": "learning_rate_finder"},
    "schedule": {"linear": "constant", "onecycle": "one_cycle", "noam": "inverse_sqrt"},
    "strategy": {"dp": "ddp", "fsdp2": "fsdp", "cuda": "gpu"},
    "logger": {"wb": "wandb", "tb": "tensorboard"},
}  # fmt: skip
"""By group, the name of a choice elsewhere and here."""


def called_here(key: str, known: Iterable[str] = ()) -> str:
    """A clause that gives a setting's name here; "" for an unknown name.

    known: settings that the key may stand for; one that begins with the key is
    nearer than any name from elsewhere.
    """
    begun = nearest(key, [name for name in known if name.startswith(key)])
    name = key.rpartition(".")[2].lower().replace("-", "_")
    return begun or (f"; here that is {SETTINGS[name]}" if name in SETTINGS else "")


def choice_here(group: str, name: str) -> str:
    """A clause with the name here of a choice that has another name elsewhere, or ""."""
    here = CHOICES.get(group, {}).get(name.lower().replace("-", "_"))
    return f"; here that is {here};" if here else ""
