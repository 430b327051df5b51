"""``dynlearn plan``."""

from typing import Annotated

import typer

from dynlearn.config import PlanConfig
from dynlearn_services.cli.flags import with_config
from dynlearn_services.cli.options import HomeOption, JsonOption, print_result
from dynlearn_services.cli.standard_output import clean_standard_output
from dynlearn_services.home import Home
from dynlearn_services.progress import ProgressBar


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
    with clean_standard_output(), ProgressBar("plan", 0, "steps") as bar:
        played = run_plan(config, place, folder, lambda done, most: bar.show(done, {}, most))
    summary = {
        "model": config.model,
        "version": played.version,
        "returns": played.returns.tolist(),
        "successes": None if played.successes is None else played.successes.tolist(),
        "success_share": played.success_share,
        "notes": list(played.notes),
        "folder": str(folder) if folder else None,
    }
    lines = [f"episode {index}: return {value:g}" for index, value in enumerate(played.returns)]
    total = f"mean return {played.returns.mean():.3g} over {config.episodes} episodes"
    if played.successes is not None:
        ends = ("success" if success else "no success" for success in played.successes)
        lines = [f"{line}, {end}" for line, end in zip(lines, ends, strict=True)]
        total = f"{played.success_share:.0%} success, {total}"
    lines = [
        f"{line}; {note}" if note else line for line, note in zip(lines, played.notes, strict=True)
    ]
    lines.append(total)
    if folder:
        lines.append(f"pictures: {folder}")
    print_result(as_json, summary, "\n".join(lines))
