"""``dynlearn collect``."""

from dynlearn.config import CollectConfig
from dynlearn.storage.uri import without_secrets
from dynlearn_services.cli.flags import with_config
from dynlearn_services.cli.options import HomeOption, JsonOption, print_result
from dynlearn_services.cli.standard_output import clean_standard_output
from dynlearn_services.home import Home
from dynlearn_services.progress import ProgressBar, collection_figures


@with_config(CollectConfig)
def collect(config: CollectConfig, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Collect episodes of a Gymnasium environment into a dataset, with Ray workers."""
    from dynlearn_services.collection.run import collect

    place = Home(home)
    place.require_writable()
    bar = ProgressBar("collect", config.episodes, "episodes")
    with clean_standard_output(), bar:
        header = collect(
            config,
            place.dataset(config.dataset),
            lambda progress: bar.show(progress.episodes, collection_figures(progress)),
        )
    shown = without_secrets(config.dataset)
    summary = {
        "dataset": shown,
        "episodes": header.episodes,
        "steps": header.steps,
        "checksum": header.checksum,
        "cut": header.faults.cut if header.faults else 0,
        "skipped": header.faults.skipped if header.faults else 0,
    }
    print_result(
        as_json,
        summary,
        f"dataset {shown}: {header.episodes} episodes, {header.steps} transitions, "
        f"checksum {header.checksum[:12]}",
    )
