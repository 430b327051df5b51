"""Board: where the replicas of one server tell one another what to serve, and what they counted.

It is an actor of Ray. If it dies it is started again, empty, and every replica tells it anew.
"""

import time
from typing import NamedTuple

from dynlearn_services.server.figures import Family, merge

# A replica that has not been heard of for so long is gone.
_SILENCE_SECONDS = 5.0


class Order(NamedTuple):
    """That a model is to be served, or no more; the latest one of a model counts."""

    given: int
    served: bool


Orders = dict[str, Order]
"""By the models' names."""


class Board:
    """What all replicas are to know of one another."""

    def __init__(self) -> None:
        self._orders: Orders = {}
        self._heard: dict[str, tuple[float, list[Family]]] = {}

    def order(self, model: str, served: bool) -> Order:
        """Have a model served by all replicas, or by none."""
        order = self._orders[model] = Order(time.time_ns(), served)
        return order

    def exchange(self, replica: str, figures: list[Family], known: Orders) -> Orders:
        """Hear a replica's figures and the orders that it knows, and return all orders."""
        self._heard[replica] = time.monotonic(), figures
        for model, order in known.items():
            self._orders[model] = max(order, self._orders.get(model, order))
        return self._orders

    def figures(self, replica: str, figures: list[Family]) -> list[Family]:
        """Return the figures of all replicas, those of the one that asks as they are now."""
        now = time.monotonic()
        self._heard[replica] = now, figures
        since = now - _SILENCE_SECONDS
        living = {name: each for name, (heard, each) in self._heard.items() if heard >= since}
        gone = [each for heard, each in self._heard.values() if heard < since]
        return merge(living, gone)
