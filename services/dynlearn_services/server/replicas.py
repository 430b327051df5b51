"""The same application several times over, behind Ray Serve's proxy."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynlearn.config import ServeConfig
from dynlearn.config.choices import Device
from dynlearn.errors import Unavailable
from dynlearn.registry import Registry
from dynlearn_services.ray_cluster import ray_cluster
from dynlearn_services.server.address import listen, required_tokens, url_of
from dynlearn_services.server.board import Board
from dynlearn_services.tokens import Tokens

if TYPE_CHECKING:
    from ray.actor import ActorHandle

# Requests under way in one replica, above which another is started.
_ONGOING_REQUESTS = 16
_MOST_ONGOING_REQUESTS = 1024


class Replica:
    """One copy of the server, in a process of its own."""

    def __init__(
        self,
        config: ServeConfig,
        registry_root: Path,
        tokens: Tokens | None,
        board: "ActorHandle[Board]",
    ):
        """Load the models, run each once, watch the registry, and join the other replicas."""
        from dynlearn_services.server.service import Service, settle

        self._service = Service(config, registry_root, tokens)
        self._service.warm_up()
        self._service.join(board)
        settle()

    def __serve_build_asgi_app__(self) -> Any:
        """Return the application."""
        from dynlearn_services.server.app import create_app

        return create_app(self._service)

    def check_health(self) -> None:
        """Check that every model has a version that answers.

        Raises:
            Unavailable: one has none, and the replica is to be replaced.
        """
        self._service.models.require_ready()

    def __del__(self) -> None:
        if hasattr(self, "_service"):
            self._service.close()


@contextmanager
def running_replicas(
    config: ServeConfig, registry_root: Path, tokens: Tokens | None = None
) -> Iterator[str]:
    """Serve models from up to so many processes as configured, and yield the address when ready.

    Replicas come and go with the requests under way. On GPUs each has an equal share of one. What
    is loaded and unloaded holds for all, and the metrics are those of all.

    Raises:
        InvalidInput: the port is in use, the host is none to listen on, or needs tokens.
        NotFound: there is no such model.
        Unavailable: Ray does not start, or no replica does.
    """
    replicas = config.replicas or 1
    registry = Registry(registry_root)
    for reference in config.model:
        registry.resolve(reference)
    listener = listen(config.host, config.port)
    with closing(listener):
        tokens, url = required_tokens(tokens, listener), url_of(listener)
        host, port = listener.getsockname()[:2]
    with ray_cluster(replicas + 1):
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(
            http_options={"host": host, "port": port},
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        try:
            _start(config, registry_root, tokens, replicas)
            yield url
        finally:
            serve.shutdown()  # type: ignore[no-untyped-call]


def _start(config: ServeConfig, registry_root: Path, tokens: Tokens | None, replicas: int) -> None:
    import ray
    from ray import serve

    gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    deploy = serve.deployment(
        name="dynlearn",
        ray_actor_options=share(config.device, replicas, gpus),
        max_ongoing_requests=_MOST_ONGOING_REQUESTS,
        graceful_shutdown_timeout_s=config.grace_seconds,
        autoscaling_config={
            "min_replicas": 1,
            "initial_replicas": replicas,
            "max_replicas": replicas,
            "target_ongoing_requests": _ONGOING_REQUESTS,
        },
    )
    board = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Board).remote()
    try:
        served = deploy(serve.ingress()(Replica))
        serve.run(served.bind(config, registry_root, tokens, board), name="dynlearn")
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise Unavailable(f"expected replicas to start, got {reason}") from error


def share(device: Device, replicas: int, gpus: int) -> dict[str, float]:
    """Return what Ray is to set aside for a replica.

    Args:
        device: to run on.
        replicas: so many at most.
        gpus: of the cluster, whatever this machine has.

    Raises:
        Unavailable: GPUs are asked for, and the cluster has none.
    """
    if device == "cuda" and not gpus:
        raise Unavailable(
            "device: expected GPUs in the Ray cluster, got none; use --device cpu, or another "
            "RAY_ADDRESS"
        )
    if device == "cpu" or not gpus:
        return {"num_cpus": 1}
    # As many on each GPU as on any other. Ray counts in ten thousandths, and must not round up.
    return {"num_cpus": 1, "num_gpus": floor(10_000 / ceil(replicas / gpus)) / 10_000}
