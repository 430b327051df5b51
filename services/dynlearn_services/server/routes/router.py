"""Router: what is asked, by whom, and the call that answers."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynlearn.errors import DynlearnError
from dynlearn_services.server.http.access import require_role
from dynlearn_services.server.http.errors import answer_error
from dynlearn_services.server.http.log import CALLER
from dynlearn_services.server.routes.matching import Match, Matcher
from dynlearn_services.server.routes.route import Route
from dynlearn_services.server.routes.table import TABLE
from dynlearn_services.server.service import Service
from dynlearn_services.tokens import ROLES, Role

logger = logging.getLogger(__name__)


class Router:
    """An ASGI application that answers by the table; the page of the API alone is another's."""

    def __init__(self, app: ASGIApp, service: Service):
        """Answer for a service; ``app`` gives the page of the API."""
        self._app = app
        self._service = service
        self._matcher = Matcher(TABLE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        if scope["method"] == "HEAD":
            send = _without_body(send)
        request = Request(scope, receive)
        try:
            route, match = self._admit(request)
            if route.call is None:
                await self._app(scope, receive, send)
                return
            response = await route.call(self._service, request, match.parts)
        except (DynlearnError, HTTPException) as error:
            response = answer_error(scope["method"], scope["path"], error)
        except Exception as error:
            logger.exception("%s %s", scope["method"], scope["path"])
            response = answer_error(scope["method"], scope["path"], error)
        await response(scope, receive, send)

    def _admit(self, request: Request) -> tuple[Route, Match]:
        """Return the route that is asked, if whoever asks may.

        Raises:
            InvalidInput: the path holds a control character.
            Unauthorized: there is no token that is known.
            Forbidden: the token's role is too low.
            HTTPException: there is no such path, or not with this method.
        """
        match = self._matcher.match(request.scope)
        method = "GET" if request.method == "HEAD" else request.method
        route = match.routes.get(method)
        role = _least_role(match) if route is None else route.role
        authorization = request.headers.get("Authorization", "")
        request.scope[CALLER] = require_role(self._service.tokens, role, authorization)
        if route is not None:
            return route, match
        if not match.routes:
            raise HTTPException(404)
        raise HTTPException(405, headers={"Allow": ", ".join(sorted(match.routes))})


def _least_role(match: Match) -> Role | None:
    """Return the role of whoever may hear that a path has no such method, or is none."""
    roles = [route.role for route in match.routes.values()]
    if not roles:
        return "admin"
    return None if None in roles else min(filter(None, roles), key=ROLES.index)


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head
