"""A configuration from any mapping: a flag, a YAML file and an HTTP body are refused alike."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dynlearn.config.choices import ObjectiveName
from dynlearn.config.objectives import OPTIONS
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


def flat_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return what may be said of a configuration, by name: an objective's options beside it."""
    fields: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        if name == "objective":
            fields |= {name: _of_names(field), **OPTIONS}
        else:
            fields[name] = field
    return fields


def _of_names(field: FieldInfo) -> FieldInfo:
    """Return the field of an objective's settings as one of its name."""
    return FieldInfo(
        annotation=ObjectiveName, default=field.default.name, description=field.description
    )


def _describe(model: type[BaseModel], fault: dict[str, Any]) -> str:
    """Return what was expected, what came and the mend, for one fault that pydantic found."""
    known = flat_fields(model)
    # A fault in an objective's settings is at (objective, its name, the option).
    name = next((str(part) for part in reversed(fault["loc"]) if part in known), "")
    name = name or str(next(iter(fault["loc"]), ""))
    if fault["type"] == "missing":
        return f"expected {flag_of(name)} ({known[name].description}), got none"
    if fault["type"] == "extra_forbidden":
        unknown = str(fault["loc"][-1])
        return f"expected a known key, got {unknown!r}; {nearest(unknown, known)}"
    if fault["type"] == "value_error":
        # One of several options together says itself which they are.
        is_of_one = bool(fault["loc"]) and fault["loc"][-1] in known
        return (f"{flag_of(name)}: " if is_of_one else "") + str(fault["ctx"]["error"])
    message = fault["msg"].removeprefix("Input should be ")
    return f"{flag_of(name)}: expected {message}, got {fault['input']!r}"
