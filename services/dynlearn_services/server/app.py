"""The HTTP application: FastAPI, with the one table of routes before it."""

from functools import partial

from fastapi import FastAPI

from dynlearn_services.server.routes.entry import Entry
from dynlearn_services.server.routes.openapi import describe_routes
from dynlearn_services.server.routes.server import VERSION
from dynlearn_services.server.routes.table import ROUTES
from dynlearn_services.server.service import Service


def create_app(service: Service) -> FastAPI:
    """Return the application over a service.

    Raises:
        InvalidInput: the configured root path is one of the routes' own.
    """
    app = FastAPI(
        title="dynlearn",
        summary="Dynamics models in the Open Inference Protocol v2",
        version=VERSION,
        # FastAPI's own routes: the table has them.
        openapi_url=None,
    )
    app.add_middleware(Entry, routes=ROUTES, service=service)
    # Not with the first request: what cannot be is to be said at once.
    app.middleware_stack = app.build_middleware_stack()
    app.openapi = partial(describe_routes, app, ROUTES, service)  # type: ignore[method-assign]
    return app
