"""Checkpoints that know their run again in whichever folder it goes on."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from equipoise.callbacks.gradient_schedule import GradientSchedule
from equipoise.callbacks.observers import every_callback


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which forgets the best score where the folder has another name.

    Here it is kept, with the file: that of the new folder where the old one was moved there, else a
    copy of the one beside the checkpoint that is resumed. Where there is none, the score counts no
    more, with a warning. A checkpoint of the weights alone (`save_weights_only`) also tells the
    phase of the gradient schedule, which its evaluation needs.
    """

    resumed_beside: Path | None = None
    first_process: bool = True

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note where the checkpoint lies."""
        if trainer.ckpt_path is not None:
            self.resumed_beside = Path(trainer.ckpt_path).parent
        self.first_process = trainer.is_global_zero

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scores, under the names that their files have in the present folder."""
        moved = {**state_dict, "dirpath": self.dirpath}
        scores = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        for path in state_dict["best_k_models"]:
            self._bring(path)
        moved["best_k_models"] = scores
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            moved[name] = self._here(state_dict[name])
        if self.monitor is not None and not all(Path(path).is_file() for path in scores):
            warnings.warn(
                f"the best checkpoint of the resumed run is not in {self.dirpath} any more: the "
                "best of what is trained from now on is kept",
                stacklevel=2,
            )
            return
        super().load_state_dict(moved)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        if not self.save_weights_only:
            super()._save_checkpoint(trainer, filepath)
            return
        module = trainer.lightning_module
        added = [c for c in every_callback(trainer) if isinstance(c, GradientSchedule)]
        saved_by_module = module.on_save_checkpoint

        def with_phase(checkpoint: dict[str, Any]) -> None:
            saved_by_module(checkpoint)
            for schedule in added:
                schedule.on_save_checkpoint(trainer, module, checkpoint)

        # Lightning asks no callback for such a file.
        module.on_save_checkpoint = with_phase  # type: ignore[method-assign]
        try:
            super()._save_checkpoint(trainer, filepath)
        finally:
            del module.on_save_checkpoint

    def _here(self, path: str) -> str:
        """The path of the same file name in the present folder."""
        return str(Path(str(self.dirpath)) / Path(path).name) if path else ""

    def _bring(self, path: str) -> None:
        """Copy a file that only the earlier folder has; several processes share what one copies."""
        target = Path(self._here(path))
        beside = (self.resumed_beside or target.parent) / target.name
        source = next((file for file in (Path(path), beside) if file.is_file()), None)
        if target.is_file() or source is None or not self.first_process:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial")
        shutil.copyfile(source, partial)
        os.replace(partial, target)
