"""``dynlearn tokens``: create, list, revoke."""

from typing import Annotated

import typer

from dynlearn_services.cli.options import HomeOption, JsonOption, print_result
from dynlearn_services.home import Home
from dynlearn_services.tokens import Role, Tokens

tokens = typer.Typer(
    help="Say who may ask the services.", no_args_is_help=True, rich_markup_mode=None
)


@tokens.command("create")
def create_token(
    name: str,
    role: Annotated[Role, typer.Option(help="read, write or admin")] = "read",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, once; services then ask every caller for one."""
    place = Home(home)
    place.require_writable()
    secret = Tokens(place.tokens).create(name, role)
    print_result(as_json, {"name": name, "role": role, "token": secret}, secret)


@tokens.command("list")
def list_tokens(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the tokens by name, with their roles."""
    known = Tokens(Home(home).tokens)
    content = {token.name: {"role": token.role} for token in known.all()}
    lines = [f"{name}: {about['role']}" for name, about in content.items()]
    none = "no tokens; on loopback none is needed"
    if known.required:
        none = f"no tokens, so that nobody may ask; make one, or delete {known.path}"
    print_result(as_json, content, "\n".join(lines) or none)


@tokens.command("revoke")
def revoke_token(name: str, home: HomeOption = None) -> None:
    """Make a token worthless."""
    Tokens(Home(home).tokens).revoke(name)
    print(f"{name} may ask no more")
