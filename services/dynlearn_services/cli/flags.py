"""Command-line flags and YAML files for the configuration models: one field, one flag.

Values are checked by the model itself, so that a flag, a YAML file and an HTTP body are refused in
the same words.
"""

import inspect
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from dynlearn.config.parsing import flag_of, flat_fields, parse_config
from dynlearn.errors import CorruptData, InvalidInput
from dynlearn.storage.files import read_bytes

# A second to read.
_MAX_YAML_BYTES = 2**16
_LONGEST_METAVAR = 40

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        InvalidInput: it cannot be read, is too large, or holds something else.
    """
    import yaml

    try:
        text = read_bytes(path, _MAX_YAML_BYTES).decode()
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            # A few of them, each of many, stand for more than any memory holds.
            raise CorruptData(f"expected YAML without aliases, got one in {path}; write it out")
        content = yaml.safe_load(text)
    except CorruptData as error:
        raise InvalidInput(f"--config: {error}") from error
    except OSError as error:
        raise InvalidInput(f"--config: expected a file, got {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"--config: expected YAML in {path}, got: {reason}") from error
    if not isinstance(content or {}, dict):
        raise InvalidInput(
            f"--config: expected `key: value` lines in {path}, got {reprlib.repr(content)}"
        )
    return content or {}


def with_config(
    model: type[Model], sections: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag for each option of ``model``, and ``--config FILE``.

    The command's first parameter receives the configuration: defaults, under the YAML file, under
    the flags. Its other parameters stay flags of their own.

    Args:
        model: the configuration.
        sections: headings of the help of a `SectionedCommand`, each by the field that it stands
            over.
    """
    fields = flat_fields(model)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def configured(config_file: Path | None, **flags: Any) -> None:
            values = read_yaml(config_file) if config_file else {}
            given = {name: flags.pop(name) for name in fields if name in flags}
            values |= {
                name: _value(fields[name], value)
                for name, value in given.items()
                if value is not None
            }
            command(parse_config(model, values), **flags)

        first, *own = inspect.signature(command).parameters.values()
        own = [parameter.replace(kind=first.KEYWORD_ONLY) for parameter in own]
        parameters, section = [], None
        for name, field in fields.items():
            section = (sections or {}).get(name, section)
            parameters.append(_parameter(name, field, section))
        configured.__signature__ = inspect.Signature([*parameters, _CONFIG_FILE, *own])  # type: ignore[attr-defined]
        configured.__name__ = command.__name__
        configured.__doc__ = command.__doc__ or model.__doc__
        return configured

    return decorate


class SectionedCommand(TyperCommand):
    """A command whose help shows its options under headings, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a list for each section, those of no section last."""
        lists: dict[str, list[Any]] = {}
        for parameter in self.get_params(ctx):
            section = getattr(parameter, "rich_help_panel", None) or "Options"
            record = parameter.get_help_record(ctx)
            lists.setdefault(section, []).extend([record] if record else [])
        for section, records in lists.items():
            with formatter.section(section):
                formatter.write_dl(records)


_CONFIG_FILE = inspect.Parameter(
    "config_file",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="YAML file; flags go over it")
    ],
)


def _parameter(name: str, field: FieldInfo, section: str | None) -> inspect.Parameter:
    flag = flag_of(name)
    is_switch = field.annotation is bool
    default = "required" if field.is_required() else _shown(field)
    metavar = None if is_switch else _metavar(field)
    choices = ""
    if metavar and len(metavar) > _LONGEST_METAVAR:
        metavar, choices = "NAME", ": " + metavar.replace("|", ", ")
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if is_switch else flag,
        help=f"{field.description}{choices}" + (f" [{default}]" if default else ""),
        show_default=False,
        metavar=metavar,
        rich_help_panel=section,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[bool | None if is_switch else str | None, option],
    )


def _shown(field: FieldInfo) -> str:
    value = field.default
    if value is None or value is False or value in ((), {}):
        return ""
    if value is True:
        return "default: yes"
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return f"default: {shown}" + (", or none" if _takes_none(field) else "")


def _takes_none(field: FieldInfo) -> bool:
    """Whether a field can be without a value, but not by leaving its flag out."""
    return field.default is not None and NoneType in get_args(field.annotation)


def _value(field: FieldInfo, text: Any) -> Any:
    return None if text == "none" and _takes_none(field) else text


def _metavar(field: FieldInfo) -> str:
    kind: Any = field.annotation
    while get_origin(kind) not in (Literal, tuple, dict, None):
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if get_origin(kind) is tuple:
        if ... not in get_args(kind):
            return "LOW:HIGH"
        return "INT,INT,..." if get_args(kind)[0] is int else "TEXT,TEXT,..."
    if get_origin(kind) is dict:
        return "JSON"
    return {int: "INT", float: "NUMBER"}.get(kind, "TEXT")
