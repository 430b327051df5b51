"""``dynlearn models``: list, show, and aliases."""

import typer

from dynlearn.errors import CorruptData
from dynlearn_services.cli.options import HomeOption, JsonOption, print_result
from dynlearn_services.home import Home

_MAX_CARD_BYTES = 2**20

models = typer.Typer(
    help="Look after published models.", no_args_is_help=True, rich_markup_mode=None
)


@models.command("list")
def list_models(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the published models, their versions and aliases."""
    from dynlearn.registry import Registry

    registry = Registry(Home(home).models)
    content = {
        name: {"versions": registry.versions(name), "aliases": registry.aliases(name)}
        for name in registry.names()
    }
    lines = [
        f"{name}: versions {', '.join(registry.versions(name))}; "
        + ", ".join(f"{alias} = {version}" for alias, version in registry.aliases(name).items())
        for name in registry.names()
    ]
    print_result(
        as_json, content, "\n".join(lines) or "no models yet; make one with `dynlearn train`"
    )


@models.command("show")
def show_model(model: str, home: HomeOption = None) -> None:
    """Print a model's card; MODEL is NAME, NAME/VERSION or NAME@ALIAS."""
    from dynlearn.registry import Registry
    from dynlearn.storage.files import read_bytes

    card = Registry(Home(home).models).resolve(model).folder / "README.md"
    try:
        text = read_bytes(card, _MAX_CARD_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptData(f"expected a model card {card}, got none that can be read") from error
    print(text)


@models.command("alias")
def set_alias(model: str, alias: str, version: str, home: HomeOption = None) -> None:
    """Point an alias of a model, such as champion, at a version."""
    from dynlearn.registry import Registry

    Registry(Home(home).models).set_alias(model, alias, version)
    print(f"{model}@{alias} is version {version}")
