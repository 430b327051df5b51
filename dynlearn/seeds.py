"""Random generators that depend on nothing but a seed and what they are for."""

from typing import SupportsIndex

import numpy as np
import torch

from dynlearn.numbers import check_integer

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


def check_seed(seed: SupportsIndex) -> int:
    """Return the seed, which may be one of NumPy's integers.

    Raises:
        InvalidInput: it is no integer between 0 and 2⁶³ - 1.
    """
    return check_integer("seed", seed, 0, 2**63 - 1)


def seeded(seed: int) -> torch.Generator:
    """Return a generator on the CPU that begins at ``seed``.

    Raises:
        InvalidInput: the seed is not between 0 and 2⁶³ - 1.
    """
    return torch.Generator().manual_seed(check_seed(seed))
