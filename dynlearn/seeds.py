"""Random generators that depend on nothing but a seed and what they are for."""

import numpy as np
import torch

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
