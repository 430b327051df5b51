"""Peers: the other replicas of a server, as one of them sees them, over the board."""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from dynlearn.errors import DynlearnError, Unavailable
from dynlearn_services.server.board import Order, Orders
from dynlearn_services.server.figures import write_figures
from dynlearn_services.server.metrics import Metrics
from dynlearn_services.server.models.served_models import ServedModels

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from dynlearn_services.server.board import Board

_LOOK_EVERY = 0.25
_ANSWER_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Peers:
    """What a replica tells the others and hears of them, from its start until it is closed."""

    def __init__(self, board: ActorHandle[Board], models: ServedModels, metrics: Metrics):
        """Do what has been ordered before this replica was there, and listen.

        Raises:
            Unavailable: the board does not answer.
        """
        self._board = board
        self._models = models
        self._metrics = metrics
        self._name = secrets.token_hex(4)
        self._orders: Orders = {}
        self._closed = threading.Event()
        self._listen()
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)
        self._thread.start()

    def order(self, model: str, served: bool) -> None:
        """Have a model served by all replicas, or by none, within a second.

        Raises:
            Unavailable: they do not hear of it.
        """
        self._orders[model] = self._ask(self._board.order.remote(model, served))

    def page(self) -> tuple[bytes, str]:
        """Return the page that Prometheus reads, of all replicas, and its content type.

        Raises:
            Unavailable: the board does not answer.
        """
        figures = self._ask(self._board.figures.remote(self._name, self._metrics.figures()))
        return write_figures(figures), CONTENT_TYPE_LATEST

    def close(self) -> None:
        """Listen no more."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        told = False
        while not self._closed.wait(_LOOK_EVERY):
            try:
                self._listen()
                told = False
            except Unavailable as error:
                if not told:
                    logger.warning("%s", error)
                told = True

    def _listen(self) -> None:
        known = dict(self._orders)
        orders: Orders = self._ask(
            self._board.exchange.remote(self._name, self._metrics.figures(), known)
        )
        for model, order in orders.items():
            before = known.get(model)
            # What cannot be done now is tried again with the next look.
            if before is None or order.given > before.given:
                with suppress(DynlearnError):
                    self._follow(model, order)

    def _follow(self, model: str, order: Order) -> None:
        if order.served:
            self._models.load(model)
        else:
            self._models.unload(model, whether_served_or_not=True)
        self._orders[model] = order

    def _ask(self, answer: Any) -> Any:
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        try:
            return ray.get(answer, timeout=_ANSWER_SECONDS)
        except (RayError, GetTimeoutError) as error:
            raise Unavailable(
                "expected the other replicas to answer, got none "
                f"({type(error).__name__}); ask again in a moment"
            ) from error
