"""Options that many commands share, and how results are printed."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="folder of everything; DYNLEARN_HOME, else ./dynlearn-home if absent"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object")]


def print_result(as_json: bool, content: dict[str, Any], text: str) -> None:
    """Print a command's result: as one JSON object, or as text."""
    print(json.dumps(content) if as_json else text)
