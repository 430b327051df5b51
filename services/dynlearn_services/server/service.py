"""Service: everything behind the HTTP application, opened and closed together."""

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch

from dynlearn.compute import pick_device
from dynlearn.config import ServeConfig
from dynlearn.registry import Registry
from dynlearn.task import installed_tasks
from dynlearn_services.server.http.access import Access
from dynlearn_services.server.http.limits import Budget
from dynlearn_services.server.inference.thread import Inference
from dynlearn_services.server.metrics import Metrics
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.models.served_models import ServedModels
from dynlearn_services.server.peers import Peers
from dynlearn_services.tokens import Tokens

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from dynlearn_services.server.board import Board


class Service:
    """The models, the thread that runs them, who may ask, and what is counted.

    Attributes:
        config: the limits.
        access: who may ask.
        tasks: whose rewards judge rollouts.
        budget: of the bytes of all requests under way.
        reader: reads long requests, one at a time: JSON keeps Python's lock while it is read, and
            several readers would keep the event loop from ever getting it.
        is_draining: whether the server is about to end and takes no new work.
    """

    def __init__(self, config: ServeConfig, registry_root: Path, tokens: Tokens | None = None):
        """Read the models from the registry.

        Args:
            config: which models, and the limits.
            registry_root: the folder of the registry.
            tokens: asked for as soon as there are any; never where it is None.

        Raises:
            NotFound: there is no such model.
            CorruptData: a file is truncated or altered.
        """
        self.config = config
        self.access = Access(tokens, (*config.allowed_hosts, config.host))
        self.tasks = tuple(installed_tasks().values())
        self.is_draining = False
        self.budget = Budget(config.max_bytes_under_way)
        self.reader = ThreadPoolExecutor(1, "reader")
        self.metrics = Metrics()
        self.models = ServedModels(
            Registry(registry_root),
            config.model,
            pick_device(config.device),
            config.precision,
            config.memory_limit_gib,
            self.metrics,
            config.allow_unchecked,
        )
        self.inference = Inference(
            config.threads or torch.get_num_threads(),
            config.max_pending,
            config.batch_rows,
            config.batch_wait_ms / 1000,
            self.metrics,
        )
        self._peers: Peers | None = None
        self.metrics.watch_pending(lambda: self.inference.pending)

    def warm_up(self) -> None:
        """Run every model once, answer from then on, and watch the registry."""

        def run(model: LoadedModel) -> None:
            self.inference.call(model.warm_up)

        self.models.open(run)

    def join(self, board: "ActorHandle[Board]") -> None:
        """Be one of several replicas from now on, which share what is ordered and counted.

        Raises:
            Unavailable: the board does not answer.
        """
        self._peers = Peers(board, self.models, self.metrics)

    def load(self, name: str) -> None:
        """Serve a model, in all replicas.

        Raises:
            NotFound: there is no such model.
            Unavailable: the version is damaged, or other replicas do not hear of it.
        """
        self.models.load(name)
        if self._peers is not None:
            self._peers.order(name, served=True)

    def unload(self, name: str) -> None:
        """Serve a model no more, in no replica.

        Raises:
            NotFound: no model of this name is served.
            Unavailable: other replicas do not hear of it.
        """
        self.models.unload(name)
        if self._peers is not None:
            self._peers.order(name, served=False)

    def page(self) -> tuple[bytes, str]:
        """Return the page that Prometheus reads, of all replicas, and its content type.

        Raises:
            Unavailable: they do not say what they have counted.
        """
        return self.metrics.page() if self._peers is None else self._peers.page()

    def close(self) -> None:
        """Stop watching, finish what waits, and end the threads."""
        if self._peers is not None:
            self._peers.close()
        self.models.close()
        self.inference.close()
        self.reader.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def settle() -> None:
    """Spare Python looking for garbage, tenths of a second each time, among all that is there now.

    For a process that is to serve until its end.
    """
    gc.collect()
    gc.freeze()
