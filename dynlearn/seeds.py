"""Random generators that depend on nothing but a seed and what they are for."""

import numpy as np
import torch

from dynlearn.errors import InvalidInput

WEIGHTS, RESAMPLE, SHUFFLE, OBJECTIVE, ROLLOUT = range(5)


def derived_seed(seed: int, purpose: int, *more: int) -> int:
    """Return a seed for one purpose, such as one member's shuffle of one epoch."""
    high, low = np.random.SeedSequence([seed, purpose, *more]).generate_state(2)
    return int(high) << 31 ^ int(low)


def derived_generator(
    seed: int, purpose: int, *more: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator for one purpose, on a device."""
    return torch.Generator(device).manual_seed(derived_seed(seed, purpose, *more))


def check_seed(seed: int) -> int:
    """Return the seed.

    Raises:
        InvalidInput: it is not between 0 and 2⁶³ - 1.
    """
    if not 0 <= seed < 2**63:
        raise InvalidInput(f"seed: expected 0 to {2**63 - 1}, got {seed}")
    return seed


def seeded(seed: int) -> torch.Generator:
    """Return a generator on the CPU that begins at ``seed``.

    Raises:
        InvalidInput: the seed is not between 0 and 2⁶³ - 1.
    """
    return torch.Generator().manual_seed(check_seed(seed))
