"""Where to compute."""

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
