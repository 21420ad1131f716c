"""The edge of the HTTP service: bodies are capped before they are read, errors leave as problem+json (RFC 9457)."""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from athena.errors import AthenaError, BadInput, RateLimited, TooLarge, Unavailable
from athena.wire import Problem

BUSY_RETRY_SECONDS = 2  # for a server that is busy, or has lost sight of the chain
_NO_ROUTE = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
_BODY_HEADERS = (b"content-length", b"transfer-encoding")


class BodyLimit:
    """ASGI middleware: reads a body of at most `max_bytes` within `seconds`, or answers 413 or 408 itself.

    A body announced as larger is refused before a byte of it is read.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not any(name in _BODY_HEADERS for name, _ in scope["headers"]):
            await self._app(scope, receive, send)  # RFC 9112, section 6.3: it has no body
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(scope, receive)
        except TooLarge as error:
            refusal = render(error)
        except TimeoutError:
            refusal = _response(_plain(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time"), {})
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)
            return
        refusal.headers["connection"] = "close"  # or the rest of the body would be read, and thrown away, for ever
        await refusal(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client left."""
        too_large = TooLarge(f"the body is over {self._max_bytes} bytes")
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and (len(announced) > len(str(self._max_bytes)) or int(announced) > self._max_bytes):
            raise too_large
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_bytes:
                raise too_large
            if not message.get("more_body", False):
                return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


def add_problem_handlers(app: FastAPI) -> None:
    """Every error, ours or the framework's, as one shape."""

    @app.exception_handler(AthenaError)
    async def _ours(_request: Request, error: AthenaError) -> Response:
        return render(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> Response:
        # Names what is wrong and where, without repeating what was sent.
        faults = (f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:10])
        return render(BadInput("; ".join(faults)[:2000]))

    @app.exception_handler(HTTPException)
    async def _framework(request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["allow"] = ", ".join(_methods(app, request) or [headers["allow"]])
        detail = "no such route, or not for this method" if status in _NO_ROUTE else str(error.detail)
        return _response(_plain(status, detail), headers)

    @app.exception_handler(Exception)
    async def _bug(_request: Request, _error: Exception) -> Response:
        return render(AthenaError("the server failed; the failure is in its log"))


def render(error: AthenaError) -> Response:
    """An error as a response, with Retry-After where the same request may succeed later."""
    status = HTTPStatus(error.status)
    detail = error.message.encode(errors="replace").decode()  # it may repeat half a surrogate pair that was sent
    problem = Problem(title=status.phrase, status=status, detail=detail, code=error.code, remedy=error.remedy)
    headers = {}
    if isinstance(error, RateLimited):
        headers["retry-after"] = str(math.ceil(error.retry_after_seconds))
    elif isinstance(error, Unavailable):
        headers["retry-after"] = str(BUSY_RETRY_SECONDS)
    return _response(problem, headers)


def _methods(app: FastAPI, request: Request) -> list[str]:
    """All methods of the path that was asked for; the router knows only those of the first route that fits."""
    path = getattr(request.scope.get("route"), "path_format", None)
    known = {method.upper() for method in app.openapi()["paths"].get(path, ())}
    return sorted(known | {"HEAD"} if "GET" in known else known)


def _plain(status: HTTPStatus, detail: str) -> Problem:
    """For what HTTP itself refuses; its code is the status in words, such as `method-not-allowed`."""
    return Problem(title=status.phrase, status=status, detail=detail, code=status.phrase.lower().replace(" ", "-"))


def _response(problem: Problem, headers: dict[str, str]) -> Response:
    return Response(problem.model_dump_json(), problem.status, headers, media_type="application/problem+json")
