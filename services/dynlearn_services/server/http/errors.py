"""One form for every error: ``{"error": text}`` with the right status."""

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from dynlearn.errors import DynlearnError, Unauthorized, Unavailable

_RETRY_SECONDS = "1"


def answer_error(method: str, path: str, error: Exception) -> JSONResponse:
    """Turn any exception into the error that the protocol's clients read."""
    status, headers = 500, {}
    message = "expected an answer, got a fault of the server; its log holds the cause"
    if isinstance(error, DynlearnError):
        status, message = error.http_status, str(error)
    elif isinstance(error, HTTPException):
        status, headers = error.status_code, dict(error.headers or {})
        message = f"{error.detail}: {method} {path}; see /openapi.json"
    if status == Unavailable.http_status:
        headers["Retry-After"] = _RETRY_SECONDS
    if status == Unauthorized.http_status:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": message}, status, headers)
