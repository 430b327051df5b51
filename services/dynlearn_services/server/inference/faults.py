"""What goes wrong while a model runs, as its caller is told."""

import torch

from dynlearn.errors import Unavailable

# What torch says where the system has no more; the error has no class of its own.
_NO_MEMORY = "DefaultCPUAllocator"


def as_told(error: BaseException) -> Exception:
    """Return a fault as one that an event loop can deliver; a shortage of memory passes."""
    if is_shortage(error):
        # What is kept there for other sizes may be what this one lacks.
        torch.cuda.empty_cache()
        told: Exception = Unavailable(
            "expected enough memory for this request beside others, got too little; ask for fewer "
            "rows, candidates or particles at a time, or again in a moment"
        )
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    else:
        # A future takes no StopIteration, and what a model runs must not end the program.
        told = RuntimeError(f"{type(error).__name__} while a model ran: {error}")
    told.__cause__ = error
    return told


def is_shortage(error: BaseException) -> bool:
    """Whether memory was short, the device's or the system's."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _NO_MEMORY in str(error)
    )
