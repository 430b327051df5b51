"""Memory: which versions leave it, and how what they leave goes back to the system."""

import ctypes
from collections.abc import Mapping
from functools import cache

import torch

from dynlearn_services.server.models.served_model import ServedModel


def evict(served: Mapping[str, ServedModel], limit: float) -> list[str]:
    """Let go of the versions asked for longest ago, but of none that answers by default.

    Args:
        served: by name.
        limit: of the bytes of all weights but those of the versions that answer by default.

    Returns:
        The names of the models that versions have left.
    """
    others = [
        (loaded.last_used, loaded.size, name, version)
        for name, one in served.items()
        for version, loaded in one.versions.items()
        if loaded is not one.current
    ]
    total = sum(size for _, size, _, _ in others)
    left = []
    for _, size, name, version in sorted(others):
        if total <= limit:
            break
        del served[name].versions[version]
        total -= size
        left.append(name)
    return left


def hand_back() -> None:
    """Give freed memory back, a GPU's too, where that can be; takes some milliseconds.

    C libraries keep it for later, and glibc can be asked not to.
    Models come and go between requests of other sizes, and the gaps that they leave in the heaps
    of several threads are else never whole enough to be given up. Torch keeps a GPU's likewise,
    from where no other process can take it.
    """
    torch.cuda.empty_cache()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> "ctypes._NamedFuncPointer | None":
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        # Another C library: musl, macOS, Windows.
        return None
