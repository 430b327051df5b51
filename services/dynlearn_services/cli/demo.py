"""``dynlearn demo``."""

from typing import Annotated

import typer

from dynlearn_services.cli.options import HomeOption, JsonOption, print_result
from dynlearn_services.cli.standard_output import clean_standard_output
from dynlearn_services.home import Home


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

    with clean_standard_output():
        content, text = run_demo(env, Home(home), seed)
    print_result(as_json, content, text)
