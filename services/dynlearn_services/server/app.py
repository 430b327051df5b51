"""The HTTP application: the router between the log of requests and the page of the API."""

from importlib.metadata import version as installed_version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from dynlearn_services.server.http.errors import handle_error
from dynlearn_services.server.http.log import RequestLog
from dynlearn_services.server.routes.openapi import describe
from dynlearn_services.server.routes.router import Router
from dynlearn_services.server.routes.table import PAGE_FILES
from dynlearn_services.server.service import Service


def create_app(service: Service) -> FastAPI:
    """Return the application over a service."""
    version = installed_version("dynlearn")
    # The page's files too: many a robot's network has no way to where FastAPI would have them from.
    app = FastAPIOffline(
        static_url=PAGE_FILES, title="dynlearn", version=version, redirect_slashes=False,
        redoc_url=None,
    )  # fmt: skip
    for kind in (HTTPException, Exception):
        app.add_exception_handler(kind, handle_error)
    app.openapi = lambda: describe(service, version)  # type: ignore[method-assign]
    app.add_middleware(Router, service=service)
    app.add_middleware(
        RequestLog,
        lines=service.config.log,
        on_error=service.metrics.observe_error,
        # Ray Serve's proxy gives every request an id, and sends it back, by itself.
        with_id=service.config.replicas is None,
    )
    return app
