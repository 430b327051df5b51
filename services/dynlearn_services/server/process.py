"""The server as a process: its socket, its thread, and how it starts and ends."""

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import uvicorn

from dynlearn.config import ServeConfig
from dynlearn_services.server.address import listen, required_tokens, url_of
from dynlearn_services.server.app import create_app
from dynlearn_services.server.http.protocol import BoundedProtocol
from dynlearn_services.server.replicas import running_replicas
from dynlearn_services.server.service import Service, settle
from dynlearn_services.signals import stop_signals
from dynlearn_services.tokens import Tokens

# Descriptors that connections leave for files: of models, of the registry, of the log.
_SPARE_DESCRIPTORS = 128

# For the models' threads and Python itself.
_SECONDS_TO_END = 2.0

# Clients drop an idle connection after a few seconds; the server must be the more patient, or a
# request meets a closed connection.
_KEEP_ALIVE_SECONDS = 75


def serve(
    config: ServeConfig,
    registry_root: Path,
    tokens: Tokens | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve models until SIGINT or SIGTERM, then finish what was accepted.

    Args:
        config: which models, where to listen, and the limits.
        registry_root: the folder of the registry.
        tokens: who may ask, where there are any; required on other addresses than loopback.
        on_ready: called with the server's address when it is ready.

    Raises:
        InvalidInput: the port is in use, the host is none to listen on, or needs tokens.
        NotFound: there is no such model.
        Unavailable: replicas are asked for, and do not start.
    """
    with stop_signals() as stop, _serving(config, registry_root, tokens) as (url, is_alive):
        settle()
        if on_ready is not None:
            on_ready(url)
        while is_alive() and not stop.wait(timeout=1):
            pass


@contextmanager
def running_server(
    config: ServeConfig, registry_root: Path, tokens: Tokens | None = None
) -> Iterator[str]:
    """Serve models from a thread of this process, and yield the server's address when ready.

    Raises:
        InvalidInput: the port is in use, the host is none to listen on, or needs tokens.
        NotFound: there is no such model.
    """
    with _running(config, registry_root, tokens) as (url, _):
        yield url


@contextmanager
def _serving(
    config: ServeConfig, registry_root: Path, tokens: Tokens | None
) -> Iterator[tuple[str, Callable[[], bool]]]:
    if config.replicas is None:
        with _running(config, registry_root, tokens) as (url, thread):
            yield url, thread.is_alive
    else:
        with running_replicas(config, registry_root, tokens) as url:
            yield url, lambda: True


@contextmanager
def _running(
    config: ServeConfig, registry_root: Path, tokens: Tokens | None
) -> Iterator[tuple[str, threading.Thread]]:
    with closing(listen(config.host, config.port)) as listener:
        tokens = required_tokens(tokens, listener)
        with Service(config, registry_root, tokens) as service:
            server = uvicorn.Server(
                uvicorn.Config(
                    create_app(service),
                    http=_protocol(config),
                    proxy_headers=bool(config.forwarded_allow_ips),
                    forwarded_allow_ips=list(config.forwarded_allow_ips),
                    log_level="warning",
                    access_log=False,
                    lifespan="off",
                    ws="none",
                    server_header=False,
                    timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                    # A number of any kind will do, whatever it says.
                    timeout_graceful_shutdown=cast("int", _patience(config.grace_seconds)),
                )
            )
            thread = threading.Thread(target=server.run, args=([listener],), name="http")
            thread.start()
            try:
                service.warm_up()
                yield url_of(listener), thread
            finally:
                service.is_draining = True
                server.should_exit = True
                thread.join()


def _patience(grace_seconds: float) -> float:
    """Return how long to wait for requests, which leaves some of the grace time to end in."""
    return max(grace_seconds / 2, grace_seconds - _SECONDS_TO_END)


def _protocol(config: ServeConfig) -> type[BoundedProtocol]:
    """Return the protocol of connections, of which there are fewer than descriptors."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = config.max_connections
    if descriptors != resource.RLIM_INFINITY:
        most = min(most, max(descriptors // 2, descriptors - _SPARE_DESCRIPTORS))
    return type("Protocol", (BoundedProtocol,), {"most_connections": most})
