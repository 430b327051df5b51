"""The model server: `serve` until a signal, or `running_server` for the length of a block."""

from dynlearn_services.server.process import running_server, serve

__all__ = ["running_server", "serve"]
