"""``dynlearn datasets``: list, show, verify, and to and from Minari."""

import json
from typing import Any

import typer

from dynlearn.errors import CorruptData
from dynlearn.storage.uri import without_secrets
from dynlearn_services.cli.options import HomeOption, JsonOption, print_result
from dynlearn_services.home import Home

datasets = typer.Typer(help="Look after datasets.", no_args_is_help=True, rich_markup_mode=None)


@datasets.command("list")
def list_datasets(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the datasets of the home."""
    from dynlearn.data.header import list_datasets, read_header

    place = Home(home)
    names = list_datasets(str(place.root / "datasets"))
    content: dict[str, Any] = {}
    lines = []
    for name in names:
        try:
            header = read_header(place.dataset(name))
        except CorruptData as error:
            content[name] = {"error": str(error)}
            lines.append(f"{name}: {error}")
            continue
        content[name] = json.loads(header.model_dump_json())
        state = (
            f"{header.episodes} episodes, {header.steps} transitions"
            + (f", {header.faults}" if header.faults else "")
            if header.finished
            else f"unfinished, {header.planned} episodes planned"
        )
        lines.append(f"{name}: {header.environment}, {state}")
    print_result(
        as_json, content, "\n".join(lines) or "no datasets yet; make one with `dynlearn collect`"
    )


@datasets.command("show")
def show_dataset(dataset: str, home: HomeOption = None) -> None:
    """Print what a dataset is and how it was made."""
    from dynlearn.data.header import read_header

    print(read_header(Home(home).dataset(dataset)).model_dump_json(indent=2))


@datasets.command("verify")
def verify_dataset(dataset: str, home: HomeOption = None) -> None:
    """Read a whole dataset and compare it with its checksums."""
    from dynlearn.data.store import EpisodeStore

    store = EpisodeStore.open(Home(home).dataset(dataset))
    store.verify()
    shown = without_secrets(dataset)
    print(f"dataset {shown}: {store.header.episodes} episodes are as they were written")


@datasets.command("export-minari")
def export_minari(dataset: str, minari_id: str, home: HomeOption = None) -> None:
    """Copy a dataset into the local Minari folder, under an id such as slide/random-v0."""
    from dynlearn.data.store import EpisodeStore
    from dynlearn_services.exchange.minari_export import export_minari

    export_minari(EpisodeStore.open(Home(home).dataset(dataset)), minari_id)
    print(f'exported; open it with minari.load_dataset("{minari_id}")')


@datasets.command("import-minari")
def import_minari(minari_id: str, dataset: str, home: HomeOption = None) -> None:
    """Copy a dataset of the local Minari folder into a new dataset."""
    from dynlearn_services.exchange.minari_import import import_minari

    place = Home(home)
    place.require_writable()
    header = import_minari(minari_id, place.dataset(dataset))
    shown = without_secrets(dataset)
    print(f"dataset {shown}: {header.episodes} episodes, {header.steps} transitions")
