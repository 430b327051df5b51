"""The command line: each command parses a configuration, calls one function and prints.

Heavy imports happen inside the commands, so that ``--help`` answers at once. Results go to standard
output, where a command has ``--json`` as one JSON object; progress and errors go to standard error.
"""

import json
import logging
import os
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynlearn.config import (
    CollectConfig,
    EvaluateConfig,
    PlanConfig,
    ServeConfig,
    TrainConfig,
)
from dynlearn.errors import CorruptData, DynlearnError, InvalidInput
from dynlearn_services.cli.flags import SectionedCommand, with_config
from dynlearn_services.home import Home
from dynlearn_services.progress import ProgressBar, collection_figures, training_figures

if TYPE_CHECKING:
    from dynlearn.training.progress import Progress

app = typer.Typer(
    name="dynlearn",
    help="Learn probabilistic dynamics models from trajectories and serve them to planners.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
datasets = typer.Typer(help="Look after datasets.", no_args_is_help=True, rich_markup_mode=None)
models = typer.Typer(
    help="Look after published models.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(datasets, name="datasets")
app.add_typer(models, name="models")
tokens = typer.Typer(
    help="Say who may ask the services.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(tokens, name="tokens")

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="folder of everything; DYNLEARN_HOME, else ./dynlearn-home if absent"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object")]
TRAIN_SECTIONS = {
    "dataset": "Data and model",
    "objective": "Objective",
    "members": "Network",
    "observation_columns": "Columns",
    "learning_rate": "Training",
    "trust_region": "Trust regions (trustable and trust_region_nll)",
    "member_groups": "Run",
}
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _log_to_standard_error() -> None:
    for package in ("dynlearn", "dynlearn_services"):
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        logger.handlers = [logging.StreamHandler()]
        logger.propagate = False


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0, 2 for bad input, 130 for Ctrl-C, else 1."""
    _log_to_standard_error()
    try:
        code = app(arguments, standalone_mode=False)
    except DynlearnError as error:
        return _fail(str(error), error.exit_code)
    except _UsageError as error:
        return _fail(error.format_message(), InvalidInput.exit_code)  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    return int(code or 0)


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _print(as_json: bool, content: dict[str, Any], text: str) -> None:
    print(json.dumps(content) if as_json else text)


@app.command()
@with_config(CollectConfig)
def collect(config: CollectConfig, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Collect episodes of a Gymnasium environment into a dataset, with Ray workers."""
    from dynlearn_services.collection.run import collect

    place = Home(home)
    place.require_writable()
    with ProgressBar("collect", config.episodes, "episodes") as bar:
        header = collect(
            config,
            place.dataset(config.dataset),
            lambda progress: bar.show(progress.episodes, collection_figures(progress)),
        )
    summary = {
        "dataset": config.dataset,
        "episodes": header.episodes,
        "steps": header.steps,
        "checksum": header.checksum,
    }
    _print(
        as_json,
        summary,
        f"dataset {config.dataset}: {header.episodes} episodes, {header.steps} transitions, "
        f"checksum {header.checksum[:12]}",
    )


@app.command(cls=SectionedCommand)
@with_config(TrainConfig, TRAIN_SECTIONS)
def train(config: TrainConfig, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Fit an ensemble dynamics model to a dataset and publish it in the registry."""
    from dynlearn.training.hooks import Hooks
    from dynlearn_services.training.run import run_training

    with ExitStack() as stack:
        labels = {"reward": "reward"} if config.learn_reward else {}
        bars = {
            part: stack.enter_context(ProgressBar(label, config.max_updates, "updates"))
            for part, label in (labels | {"dynamics": "train"}).items()
        }

        def show(progress: "Progress") -> None:
            bars[progress.part].show(progress.update, training_figures(progress), progress.updates)

        version, metrics = run_training(config, Home(home), Hooks(on_progress=show))
    summary = {"model": version.name, "version": version.version, **metrics.model_dump()}
    _print(
        as_json,
        summary,
        f"model {version.name} version {version.version}: NLL {metrics.nll:.3f}, RMSE "
        f"{metrics.rmse:.4g} on {metrics.episodes} held-out episodes; {version.folder}",
    )


@app.command()
@with_config(EvaluateConfig)
def evaluate(config: EvaluateConfig, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Measure a model on held-out episodes; write figures and a model card."""
    from dynlearn_services.evaluation.run import run_evaluation

    metrics, folder = run_evaluation(config, Home(home))
    lines = [f"NLL {metrics.nll:.3f}, RMSE {metrics.rmse:.4g} on {metrics.episodes} episodes"]
    lines += [f"  {name}: RMSE {value:.4g}" for name, value in metrics.rmse_per_column.items()]
    lines += [f"  inside the {name} interval: {s:.1%}" for name, s in metrics.coverage.items()]
    lines += [
        f"  inside the {name} ellipsoid: {s:.1%}" for name, s in metrics.joint_coverage.items()
    ]
    for step in (1, 5, 15, 50):
        if step <= len(metrics.open_loop_rmse):
            lines.append(
                f"  open loop, {step} steps: RMSE {metrics.open_loop_rmse[step - 1]:.4g}, of no "
                f"change {metrics.open_loop_rmse_of_no_change[step - 1]:.4g}"
            )
    if metrics.reward_rmse is not None:
        lines.append(
            f"  learned reward: RMSE {metrics.reward_rmse:.4g}, of the mean reward "
            f"{metrics.rmse_of_mean_reward:.4g}"
        )
    content = {**metrics.model_dump(), "folder": str(folder)}
    _print(as_json, content, "\n".join([*lines, f"figures and model card: {folder}"]))


@app.command()
@with_config(ServeConfig)
def serve(config: ServeConfig, home: HomeOption = None) -> None:
    """Serve models over HTTP in the Open Inference Protocol v2."""
    # Read when torch is imported: its idle threads are not to take the event loop's processor.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dynlearn_services.server.process import serve
    from dynlearn_services.tokens import Tokens

    def announce(url: str) -> None:
        print(f"serving {', '.join(config.model) or 'all models'} at {url}", flush=True)

    place = Home(home)
    serve(config, place.models, Tokens(place.tokens), announce)


@app.command()
@with_config(PlanConfig)
def plan(
    config: PlanConfig,
    home: HomeOption = None,
    pictures: Annotated[
        bool, typer.Option(help="write an animation and a figure of imagined against real")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Play real episodes with a planner over a learned model, local or served."""
    from dynlearn_services.planning.run import run_plan

    place = Home(home)
    folder = place.plan(config.model) if pictures else None
    if folder is not None:
        place.require_writable(folder)
    with ProgressBar("plan", 0, "steps") as bar:
        played = run_plan(config, place, folder, lambda done, most: bar.show(done, {}, most))
    summary = {
        "model": config.model,
        "version": played.version,
        "returns": played.returns.tolist(),
        "successes": None if played.successes is None else played.successes.tolist(),
        "success_share": played.success_share,
        "folder": str(folder) if folder else None,
    }
    lines = [f"episode {index}: return {value:g}" for index, value in enumerate(played.returns)]
    total = f"mean return {played.returns.mean():.3g} over {config.episodes} episodes"
    if played.successes is not None:
        ends = ("success" if success else "no success" for success in played.successes)
        lines = [f"{line}, {end}" for line, end in zip(lines, ends, strict=True)]
        total = f"{played.success_share:.0%} success, {total}"
    lines.append(total)
    if folder:
        lines.append(f"pictures: {folder}")
    _print(as_json, summary, "\n".join(lines))


@app.command()
def demo(
    env: Annotated[
        str, typer.Option(help="slide (ObjectSlide) or fetch (FetchPickAndPlace)")
    ] = "slide",
    home: HomeOption = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="of the whole demo")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Collect, train, serve and plan, from nothing to a solved environment."""
    from dynlearn_services.demo import run_demo

    content, text = run_demo(env, Home(home), seed)
    _print(as_json, content, text)


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
            if header.finished
            else f"unfinished, {header.planned} episodes planned"
        )
        lines.append(f"{name}: {header.environment}, {state}")
    _print(
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
    print(f"dataset {dataset}: {store.header.episodes} episodes are as they were written")


@datasets.command("export-minari")
def export_minari(dataset: str, minari_id: str, home: HomeOption = None) -> None:
    """Copy a dataset into the local Minari folder, under an id such as slide/random-v0."""
    from dynlearn.data.store import EpisodeStore
    from dynlearn_services.exchange.minari import export_minari

    export_minari(EpisodeStore.open(Home(home).dataset(dataset)), minari_id)
    print(f'exported; open it with minari.load_dataset("{minari_id}")')


@datasets.command("import-minari")
def import_minari(minari_id: str, dataset: str, home: HomeOption = None) -> None:
    """Copy a dataset of the local Minari folder into a new dataset."""
    from dynlearn_services.exchange.minari import import_minari

    place = Home(home)
    place.require_writable()
    header = import_minari(minari_id, place.dataset(dataset))
    print(f"dataset {dataset}: {header.episodes} episodes, {header.steps} transitions")


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
    _print(as_json, content, "\n".join(lines) or "no models yet; make one with `dynlearn train`")


@models.command("show")
def show_model(model: str, home: HomeOption = None) -> None:
    """Print a model's card; MODEL is NAME, NAME/VERSION or NAME@ALIAS."""
    from dynlearn.registry import Registry

    card = Registry(Home(home).models).resolve(model).folder / "README.md"
    try:
        print(card.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptData(f"expected a model card {card}, got none that can be read") from error


@models.command("alias")
def set_alias(model: str, alias: str, version: str, home: HomeOption = None) -> None:
    """Point an alias of a model, such as champion, at a version."""
    from dynlearn.registry import Registry

    Registry(Home(home).models).set_alias(model, alias, version)
    print(f"{model}@{alias} is version {version}")


class _Role(StrEnum):
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@tokens.command("create")
def create_token(
    name: str,
    role: Annotated[_Role, typer.Option(help="read, write or admin")] = _Role.READ,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, once; services then ask every caller for one."""
    from dynlearn_services.tokens import Tokens

    place = Home(home)
    place.require_writable()
    secret = Tokens(place.tokens).create(name, role.value)
    _print(as_json, {"name": name, "role": role.value, "token": secret}, secret)


@tokens.command("list")
def list_tokens(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the tokens by name, with their roles."""
    from dynlearn_services.tokens import Tokens

    content = {token.name: {"role": token.role} for token in Tokens(Home(home).tokens).all()}
    lines = [f"{name}: {about['role']}" for name, about in content.items()]
    _print(as_json, content, "\n".join(lines) or "no tokens; on loopback none is needed")


@tokens.command("revoke")
def revoke_token(name: str, home: HomeOption = None) -> None:
    """Make a token worthless."""
    from dynlearn_services.tokens import Tokens

    Tokens(Home(home).tokens).revoke(name)
    print(f"{name} may ask no more")
