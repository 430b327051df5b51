"""A configuration from any mapping: a flag, a YAML file and an HTTP body are refused alike."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dynlearn.errors import InvalidInput, nearest

Model = TypeVar("Model", bound=BaseModel)


def parse_config(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Return a configuration made of ``values``.

    Raises:
        InvalidInput: a key is unknown, absent, or has a value that does not suit it.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        faults = (_describe(model, dict(fault)) for fault in error.errors())
        raise InvalidInput("; ".join(faults)) from error


def flag_of(name: str) -> str:
    """Return the command line's flag for a field."""
    return "--" + name.replace("_", "-")


def _describe(model: type[BaseModel], fault: dict[str, Any]) -> str:
    """Return what was expected, what came and the mend, for one fault that pydantic found."""
    name = str(fault["loc"][0]) if fault["loc"] else ""
    if fault["type"] == "missing":
        return f"expected {flag_of(name)} ({model.model_fields[name].description}), got none"
    if fault["type"] == "extra_forbidden":
        return f"expected a known key, got {name!r}; {nearest(name, model.model_fields)}"
    if fault["type"] == "value_error":
        return (f"{flag_of(name)}: " if name else "") + str(fault["ctx"]["error"])
    message = fault["msg"].removeprefix("Input should be ")
    return f"{flag_of(name)}: expected {message}, got {fault['input']!r}"
