"""``dynlearn train``."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from dynlearn.config import TrainConfig
from dynlearn_services.cli.flags import with_config
from dynlearn_services.cli.options import HomeOption, JsonOption, print_result
from dynlearn_services.cli.standard_output import clean_standard_output
from dynlearn_services.home import Home
from dynlearn_services.progress import ProgressBar, training_figures

if TYPE_CHECKING:
    from dynlearn.training.progress import Progress

TRAIN_SECTIONS = {
    "dataset": "Data and model",
    "objective": "Objective",
    "trust_region": "Trust regions (trustable and trust_region_nll)",
    "covariance": "Network",
    "observation_columns": "Columns",
    "learning_rate": "Training",
    "member_groups": "Run",
}


@with_config(TrainConfig, TRAIN_SECTIONS)
def train(config: TrainConfig, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Fit an ensemble dynamics model to a dataset and publish it in the registry."""
    from dynlearn.training.hooks import Hooks
    from dynlearn_services.training.run import run_training

    with clean_standard_output(), ExitStack() as stack:
        labels = {"reward": "reward"} if config.learn_reward else {}
        bars = {
            part: stack.enter_context(ProgressBar(label, config.max_updates, "updates"))
            for part, label in (labels | {"dynamics": "train"}).items()
        }

        def show(progress: "Progress") -> None:
            bars[progress.part].show(progress.update, training_figures(progress), progress.updates)

        version, metrics = run_training(config, Home(home), Hooks(on_progress=show))
    summary = {"model": version.name, "version": version.version, **metrics.model_dump()}
    print_result(
        as_json,
        summary,
        f"model {version.name} version {version.version}: NLL {metrics.nll:.3f}, RMSE "
        f"{metrics.rmse:.4g} on {metrics.episodes} held-out episodes; {version.folder}",
    )
