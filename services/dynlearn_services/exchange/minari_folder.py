"""Minari's local folder, and the ids of the datasets in it.

Minari keeps its datasets under MINARI_DATASETS_PATH, else ``~/.minari/datasets``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minari.dataset.minari_dataset import parse_dataset_id
from minari.storage import get_dataset_path

from dynlearn.errors import InvalidInput, NotFound, nearest

_DATA = "data"
_METADATA = "metadata.json"


@contextmanager
def minari_folder() -> Iterator[None]:
    """Silence Minari's advice to dataset authors; make one line of what fails on the disk."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="minari")
            yield
    except OSError as error:
        raise InvalidInput(
            f"expected Minari's folder to be readable and writable, got {error}; "
            "name another by MINARI_DATASETS_PATH"
        ) from error


def path_of(dataset_id: str) -> Path:
    """Return where Minari keeps, or would keep, a dataset.

    Raises:
        InvalidInput: it is no Minari id.
    """
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"expected a Minari id such as slide/random-v0, got {dataset_id!r}"
        ) from error
    return Path(get_dataset_path(dataset_id))


def require_there(dataset_id: str) -> None:
    """Check that there is a dataset of this id.

    Raises:
        InvalidInput: it is no Minari id.
        NotFound: there is none.
    """
    if not (path_of(dataset_id) / _DATA / _METADATA).is_file():
        raise NotFound(
            f"expected the id of a local Minari dataset, got {dataset_id!r}; "
            f"{nearest(dataset_id, local_ids())}"
        )


def local_ids() -> list[str]:
    """Return the ids of the local datasets; whatever else is in the folder is passed over."""
    root = Path(get_dataset_path(""))
    found = []
    for place, folders, _ in os.walk(root):
        if _DATA in folders and (Path(place) / _DATA / _METADATA).is_file():
            found.append(Path(place).relative_to(root).as_posix())
            folders.clear()
    return sorted(found)
