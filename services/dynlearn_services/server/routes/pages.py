"""The API's page, for people and for programs; it needs nothing from elsewhere."""

from collections.abc import Mapping
from pathlib import Path

import fastapi_offline
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from dynlearn_services.server.service import Service

PAGE, PAGE_FILES, DOCUMENT = "/docs", "/docs-files", "/openapi.json"

# Many a robot's network has no way to where FastAPI would have them from.
_FILES = StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static")


async def show_page(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Return the page on which calls can be tried."""
    root = service.config.root_path
    return get_swagger_ui_html(
        openapi_url=f"{root}{DOCUMENT}",
        title=f"{request.app.title} - Swagger UI",
        swagger_js_url=f"{root}{PAGE_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{PAGE_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{root}{PAGE_FILES}/favicon.png",
    )


async def show_file(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Return a file that the page needs."""
    return await _FILES.get_response(parts["file"], request.scope)


async def show_document(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Return the OpenAPI document."""
    return JSONResponse(request.app.openapi())
