from typing import Any

import numpy as np
import pytest

from dynlearn.errors import InvalidInput
from dynlearn.seeds import check_seed, seeded


@pytest.mark.parametrize("seed", [0, 3, np.int64(3), np.uint8(3), 2**63 - 1])
def test_a_seed_is_any_integer(seed: Any) -> None:
    assert check_seed(seed) == seed
    assert type(check_seed(seed)) is int
    assert seeded(seed).initial_seed() == seed


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "3", None, True, [3]])
def test_anything_else_is_refused(seed: Any) -> None:
    with pytest.raises(InvalidInput, match=r"seed: expected an integer from 0 to"):
        check_seed(seed)
