"""Files that hold state: safetensors for tensors, JSON for everything else, written whole.

Every file is written aside and renamed, so that a reader sees the old one or the new one.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from dynlearn.errors import CorruptData, NotFound

_MAX_JSON_BYTES = 64 * 2**20
_STATE_KEY = "state"

Model = TypeVar("Model", bound=BaseModel)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step; what a crash leaves behind starts with a dot."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def write_json(path: Path, content: object) -> None:
    """Write a pydantic model in its own JSON form, or anything else with infinities refused."""
    if isinstance(content, BaseModel):
        text = content.model_dump_json(indent=2)
    else:
        text = json.dumps(content, indent=2, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name."""
    write_bytes(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


def read_json(path: Path, kind: type[Model]) -> Model:
    """Read a JSON file as a pydantic model.

    Raises:
        NotFound: there is no such file.
        CorruptData: it is too large, or not what ``kind`` describes.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise CorruptData(f"expected at most {_MAX_JSON_BYTES} bytes, got more in {path}")
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"expected a file {path}, got none") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CorruptData(
            f"expected {kind.__name__} in {path}, got a fault at {where}: {first['msg']}; "
            "restore the file from where it was made"
        ) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, on the CPU.

    Raises:
        NotFound: there is no such file.
        CorruptData: it is truncated or is no safetensors file.
    """
    try:
        return load(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"expected a file {path}, got none") from error
    except SafetensorError as error:
        raise CorruptData(
            f"expected a whole safetensors file, got {path} ({error}); "
            "restore the file from where it was made"
        ) from error


def save_state(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON state as one safetensors file, so that neither can be older."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(contiguous, {_STATE_KEY: json.dumps(state)}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote, tensors on the CPU.

    Raises:
        CorruptData: the file is truncated or altered.
    """
    try:
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})[_STATE_KEY])
        return load_tensors(path), state
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptData(
            f"expected a whole checkpoint, got {path} ({error}); delete it to start over"
        ) from error
