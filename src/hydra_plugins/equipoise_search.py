"""Hydra's door to our searches: a sweeper, which Hydra takes from this package alone.

Hydra imports it whenever it starts, so it imports nothing but Hydra until it is used. A sweep that
has a space, such as `sweep=optuna`, chooses it.
"""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Search(Sweeper):
    """Draws the jobs by Optuna, and lets the chosen launcher carry them out."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take the configuration that all jobs share, and make the launcher."""
        self.settings = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Let the jobs run, as many at once as the settings say, until the study has its trials."""
        from equipoise.commands.search import carry_on

        carry_on(self.launcher.launch, arguments, self.settings)


ConfigStore.instance().store(
    group="hydra/sweeper", name="equipoise", node={"_target_": f"{__name__}.Search"}
)
