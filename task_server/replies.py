"""What a reply gets on its way out: an ETag if it is a GET's, the server's signature if the request was signed."""

from __future__ import annotations

import hashlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from athena.chain.auth import HEADER_REPLY_SIGNATURE, HEADER_REQUEST_SIGNATURE, ReplySigner

_SIGNED = HEADER_REQUEST_SIGNATURE.lower().encode()
_SIGNATURE = HEADER_REPLY_SIGNATURE.lower().encode()
_READS = ("GET", "HEAD")
MAX_SIGNATURE_BYTES = 200
_OF_A_BODY = (b"content-length", b"content-type")


class Finish:
    """ASGI middleware. The reply to a GET gets a strong ETag, the one to a signed request is signed, errors included.

    A GET whose If-None-Match holds that ETag is answered with 304 and no body. HEAD is answered as GET, without the
    body. Caches ask again each time, unless the reply says how long it lasts.
    """

    def __init__(self, app: ASGIApp, signer: ReplySigner) -> None:
        self._app = app
        self._signer = signer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (scope["method"] in _READS or _signature(scope)):
            await self._app(scope, receive, send)
            return
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        start: Message = {}
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            parts.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            scope["route"] = inner.get("route")  # for those who watch
            body = self._finished(scope, start, b"".join(parts))
            await send(start)
            await send({"type": "http.response.body", "body": body})

        await self._app(inner, receive, collect)

    def _finished(self, scope: Scope, start: Message, body: bytes) -> bytes:
        """The body that goes out; completes the start of the reply."""
        if scope["method"] in _READS:
            if not any(name == b"cache-control" for name, _ in start["headers"]):
                start["headers"].append((b"cache-control", b"no-cache"))
            if start["status"] == 200:
                body = _tag(start, body, _header(scope, b"if-none-match"))
            if scope["method"] == "HEAD":
                body = b""
        signature = _signature(scope)
        if signature:
            signed = self._signer.sign(signature.decode("latin-1"), start["status"], body)
            start["headers"].append((_SIGNATURE, signed.encode()))
        return body


def _signature(scope: Scope) -> bytes:
    """A request's signature; empty where there is none, or what cannot be one."""
    signature = _header(scope, _SIGNED)
    return signature if len(signature) <= MAX_SIGNATURE_BYTES else b""


def _header(scope: Scope, wanted: bytes) -> bytes:
    """The first header of that name, as the routes take it too."""
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def _tag(start: Message, body: bytes, known: bytes) -> bytes:
    """Adds the ETag; an empty body, and 304, if the client knows it already."""
    tag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
    start["headers"].append((b"etag", tag))
    if known.strip() != b"*" and tag not in (part.strip().removeprefix(b"W/") for part in known.split(b",")):
        return body
    start["status"] = 304
    start["headers"] = [(name, value) for name, value in start["headers"] if name not in _OF_A_BODY]
    return b""
