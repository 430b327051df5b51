"""Fixtures that more than one test module needs."""

from collections.abc import Iterator

import pytest

from dynlearn_services.ray_cluster import ray_cluster


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests; starting it takes seconds."""
    with ray_cluster(4):
        yield
