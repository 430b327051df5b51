"""Entry: every request comes in here, and is answered by the row of the table that it is for.

It is matched once, its role is checked, and its call runs; no other router has a say. Its answer
and its line in the log carry its id.
"""

import asyncio
import errno
import logging
from collections.abc import Mapping, Sequence

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynlearn.errors import DynlearnError, Unavailable
from dynlearn_services.server.http.errors import answer_error
from dynlearn_services.server.http.headers import require_single
from dynlearn_services.server.http.limits import send_in_time
from dynlearn_services.server.http.log import REQUEST_ID, Line, RequestLog
from dynlearn_services.server.http.protocol import ABORT
from dynlearn_services.server.routes.matcher import Matcher, split_path
from dynlearn_services.server.routes.root import Root
from dynlearn_services.server.routes.route import Route
from dynlearn_services.server.service import Service

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger(__name__)


class Entry:
    """An ASGI application that answers all of HTTP, and passes on what else a server sends."""

    def __init__(self, app: ASGIApp, routes: Sequence[Route], service: Service):
        """Make what all requests pass.

        Raises:
            InvalidInput: the configured root path is one of the routes' own.
        """
        self._app = app
        self._service = service
        self._matcher = Matcher(routes)
        self._root = Root(service.config.root_path, routes)
        self._access = service.access
        self._log = RequestLog(service.config.log)
        # Ray Serve's proxy gives every request an id, and sends it back, by itself.
        self._marks = service.config.replicas is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        line = self._log.begin(request)

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                line.status = message["status"]
                if self._marks:
                    MutableHeaders(raw=message["headers"])[REQUEST_ID] = line.request_id
            await send_in_time(send, message)

        try:
            with self._service.budget.share() as request.state.take:
                response = await self._answer(request, line)
                await response(scope, receive, send_marked)
        except TimeoutError:
            # It reads no more, and what it has not read would be kept until it did.
            line.status = 499
            await _abort(scope)
        except asyncio.CancelledError:
            # The server's time to end is over.
            if line.status:
                await _abort(scope)
            else:
                ending = Unavailable("the server is ending: ask again, of it or of another")
                response = answer_error(line.method, line.path, ending)
                await response(scope, receive, send_marked)
        finally:
            if line.status >= 400:
                self._service.metrics.observe_error(line.status)
            self._log.end(line)

    async def _answer(self, request: Request, line: Line) -> Response:
        try:
            route, parts = self._admit(request, line)
            return await route.call(self._service, request, parts)
        except (DynlearnError, HTTPException) as error:
            return answer_error(line.method, line.path, error)
        except OSError as error:
            if error.errno not in _SHORTAGES:
                logger.exception("%s %s", line.method, line.path)
                return answer_error(line.method, line.path, error)
            # It passes, and its place in the program tells nothing.
            logger.error("%s %s: %s", line.method, line.path, error.strerror)
            shortage = Unavailable(f"{error.strerror}: ask again in a moment")
            return answer_error(line.method, line.path, shortage)
        except Exception as error:
            logger.exception("%s %s", line.method, line.path)
            return answer_error(line.method, line.path, error)

    def _admit(self, request: Request, line: Line) -> tuple[Route, Mapping[str, str]]:
        """Return the route that a request is for, if its caller may ask for it."""
        require_single(request.scope["headers"])
        match = self._matcher.find(self._root.within(split_path(request.scope)))
        if match is None:
            # What there is not is nobody's business, and a mistake here opens nothing.
            line.caller = self._access.require(request.headers, "admin")
            raise HTTPException(404)
        route = match.routes.get("GET" if line.method == "HEAD" else line.method)
        if route is None:
            line.caller = self._access.require(request.headers, match.role)
            raise HTTPException(405, headers={"Allow": match.methods})
        line.caller = self._access.require(request.headers, route.role)
        return route, match.parts


async def _abort(scope: Scope) -> None:
    end = scope.get("extensions", {}).get(ABORT)
    if end is not None:
        end["call"]()
        # For the server to see it.
        await asyncio.sleep(0)
