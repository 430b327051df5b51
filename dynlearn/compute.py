"""Where to compute: the device, and threads with torch to themselves."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

from dynlearn.config.choices import Device
from dynlearn.errors import InvalidInput


def pick_device(wanted: Device) -> torch.device:
    """Return the device that is wanted; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        InvalidInput: CUDA is wanted and there is none.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InvalidInput("expected a CUDA device, got a machine without one; use --device cpu")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


@contextmanager
def torch_threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Give so many threads, in each of which torch computes on that thread alone.

    Small products are faster so, side by side, than split over threads, which fork and join at
    each. When the context ends, the threads have ended and torch's own number is what it was.
    """
    own = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, name, torch.set_num_threads, (1,)) as pool:
            yield pool
    finally:
        # A thread's own number is also what later threads begin with.
        torch.set_num_threads(own)
