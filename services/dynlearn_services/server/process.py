"""The server as a process: its socket, its thread, and how it starts and ends."""

import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import uvicorn

from dynlearn.config import ServeConfig
from dynlearn.devices import pick_device
from dynlearn.errors import InvalidInput
from dynlearn.registry import Registry
from dynlearn_services.server.app import create_app
from dynlearn_services.server.loaded_model import LoadedModel

# Clients drop an idle connection after a few seconds; the server must be the more patient, or a
# request meets a closed connection.
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 10
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    config: ServeConfig, registry_root: Path, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve a model until SIGINT or SIGTERM, then finish what was accepted.

    Args:
        config: which model, and where to listen.
        registry_root: the folder of the registry.
        on_ready: called with the server's address when it is ready.

    Raises:
        InvalidInput: the port is in use, or the host is none to listen on.
        NotFound: there is no such model.
    """
    stop = threading.Event()
    with _set_on_signals(stop), _running(config, registry_root) as (url, thread):
        if on_ready is not None:
            on_ready(url)
        while thread.is_alive() and not stop.wait(timeout=1):
            pass


@contextmanager
def running_server(config: ServeConfig, registry_root: Path) -> Iterator[str]:
    """Serve a model from a thread of this process, and yield the server's address when ready.

    Raises:
        InvalidInput: the port is in use, or the host is none to listen on.
        NotFound: there is no such model.
    """
    with _running(config, registry_root) as (url, _):
        yield url


@contextmanager
def _running(config: ServeConfig, registry_root: Path) -> Iterator[tuple[str, threading.Thread]]:
    version = Registry(registry_root).resolve(config.model)
    with (
        closing(_listen(config.host, config.port)) as listener,
        closing(LoadedModel.load(version, pick_device(config.device))) as model,
    ):
        server = uvicorn.Server(
            uvicorn.Config(
                create_app({model.name: model}, config),
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        thread = threading.Thread(target=server.run, args=([listener],), name="http")
        thread.start()
        try:
            model.warm_up()
            yield _url(listener), thread
        finally:
            server.should_exit = True
            thread.join()


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidInput(
            f"host: expected an address to listen on, got {host!r} ({error}); use 127.0.0.1"
        ) from error
    family, _, _, _, address = found[0]
    try:
        if not ipaddress.ip_address(address[0]).is_loopback:
            raise InvalidInput(
                f"host: expected an address of this machine's loopback, got {host!r}; the server "
                "has no tokens yet, and so answers no other machine"
            )
        listener = socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise InvalidInput(
            f"expected a free port to listen on, got {host}:{port} ({error}); choose another "
            "--port, or 0 for any"
        ) from error
    # Connections inherit it; without it each small answer waits 40 ms for the client's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _set_on_signals(event: threading.Event) -> Iterator[None]:
    """Set ``event`` at the first stop signal; a second one acts as it did before."""
    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(*_: object) -> None:
        restore()
        event.set()

    for number in _STOP_SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
