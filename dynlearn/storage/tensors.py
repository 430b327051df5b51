"""Tensors in safetensors files, alone or with a JSON state.

Every file is written whole, by `dynlearn.storage.files`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from dynlearn.errors import CorruptData, NotFound
from dynlearn.storage.files import MAX_BYTES, open_plain, read_bytes, write_bytes

_STATE_KEY = "state"


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name."""
    write_bytes(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, on the CPU.

    Raises:
        NotFound: there is no such file.
        CorruptData: it is truncated or is no safetensors file.
    """
    try:
        return load(read_bytes(path, MAX_BYTES))
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
        with open_plain(path), safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})[_STATE_KEY])
        return load_tensors(path), state
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptData(
            f"expected a whole checkpoint, got {path} ({error}); delete it to start over"
        ) from error
