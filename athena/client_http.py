"""One exchange with the task server: sent, read whole within limits, its failure told apart. See athena.client."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from athena.errors import (
    AthenaError,
    BadInput,
    Conflict,
    Forbidden,
    Misconfigured,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from athena.wire import Problem

if TYPE_CHECKING:
    from athena.chain.wallets import Wallet

MAX_REPLY_BYTES = 64 * 2**20
MAX_REPLY_SECONDS = 120.0  # for the whole of a reply: a server that sends a byte now and then meets every read timeout
MAX_MESSAGE_CHARACTERS = 2000
TIMEOUT = httpx.Timeout(20.0, connect=5.0)
RETRIED_STATUS = (408, 429, 502, 503, 504)
UNSIGNED_STATUS = (408, 413, 429)  # these, and 5xx, a proxy in front of the server may have written
DEFAULT_RETRY_SECONDS = 1.0  # of a refusal that does not say when to come back

_BY_CODE: Mapping[str, type[AthenaError]] = {
    error.code: error for error in (BadInput, TooLarge, NotFound, Conflict, Unauthorized, Forbidden, Unavailable)
}
Reply = TypeVar("Reply", bound=BaseModel)


def open_http(url: str, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """A connection to the API at `url`. Raises Misconfigured for what is no http(s) address."""
    try:
        address = httpx.URL(url.rstrip("/") + "/v1/")
        host = address.host.encode("idna")  # as the resolver does it, much later
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Misconfigured(f"{url!r} is no address: {error}", remedy="give one such as http://host:8808") from error
    if address.scheme not in ("http", "https") or not host:
        raise Misconfigured(f"{url!r} is no http(s) address", remedy="give one such as http://host:8808")
    local = _is_loopback(address.host)
    return httpx.Client(
        base_url=address,
        timeout=TIMEOUT,
        transport=transport,
        headers={"accept-encoding": "gzip"},  # inflates a thousandfold at most, unlike its successors
        trust_env=not local,  # a proxy cannot reach this machine's own server
        verify=not local or address.scheme == "https",  # reading certificates for nothing takes a tenth of a second
    )


@dataclass(frozen=True)
class Answer:
    """A reply as it came."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def retry_after_seconds(self) -> float | None:
        """From now on; null where the server does not say, or not in the form of RFC 9110, section 10.2.3."""
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdecimal():
            return float(value[:9])
        then, now = _date(value), _date(self.headers.get("date", "")) or datetime.now(UTC)
        return max(0.0, (then - now).total_seconds()) if then else None


class Seal:
    """Signs requests to one server, each attempt anew, and tells whether that server wrote the reply."""

    def __init__(self, wallet: Wallet, server_hotkey: str) -> None:
        # Not at the top: it takes a second, which those who only read need not wait.
        from athena.chain import auth

        self._server = server_hotkey
        self._auth = auth
        self.signer = auth.RequestSigner(wallet, server_hotkey)

    def check(self, answer: Answer, request: httpx.Request) -> None:
        """Raises Unauthorized unless the server signed this answer to this request, or a proxy may refuse so."""
        signature = answer.headers.get(self._auth.HEADER_REPLY_SIGNATURE)
        if signature is None and (answer.status in UNSIGNED_STATUS or answer.status >= 500):
            return
        self._auth.verify_reply(
            signature,
            answer.body,
            request_signature=request.headers[self._auth.HEADER_REQUEST_SIGNATURE],
            status=answer.status,
            server=self._server,
        )


def exchange(http: httpx.Client, request: httpx.Request, seal: Seal | None) -> Answer:
    """One attempt, its body read whole. Raises TooLarge, Unavailable without an answer, Unauthorized (see Seal)."""
    try:
        response = http.send(request, auth=seal.signer if seal else None, stream=True)
        with closing(response):
            body = _read(response)
    except httpx.RequestError as error:
        raise Unavailable(f"no answer from {request.url.host}: {error!r}") from error
    answer = Answer(response.status_code, response.headers, body)
    if seal is not None:
        seal.check(answer, response.request)
    return answer


def _read(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") not in ("identity", "gzip"):
        raise BadInput("the server's answer is packed in a way that was not asked for")
    until = time.monotonic() + MAX_REPLY_SECONDS
    parts: list[bytes] = []
    size = 0
    for part in response.iter_bytes():
        size += len(part)
        if size > MAX_REPLY_BYTES:
            raise TooLarge(f"the server's answer is over {MAX_REPLY_BYTES} bytes")
        if time.monotonic() > until:
            raise Unavailable(f"the server's answer took over {MAX_REPLY_SECONDS:.0f} s")
        parts.append(part)
    return b"".join(parts)


def parsed(reply: type[Reply], answer: Answer) -> Reply:
    """Raises BadInput for what is no such noun."""
    try:
        return reply.model_validate_json(answer.body)
    except ValidationError as error:
        raise BadInput(f"the server's answer is no {reply.__name__}: {error.error_count()} faults") from error


def failure(answer: Answer) -> AthenaError:
    """The server's problem+json as the error that it was there; by its status where it is something else.

    A code counts only with its own status: a proxy's 502 never passes for a lost lease.
    """
    try:
        problem = Problem.model_validate_json(answer.body)
    except ValidationError:
        problem = None
    detail = printable(problem.detail) if problem else f"HTTP {answer.status} without a problem document"
    remedy = printable(problem.remedy) if problem and problem.remedy else None
    if answer.status == RateLimited.status:
        seconds = answer.retry_after_seconds
        seconds = DEFAULT_RETRY_SECONDS if seconds is None else seconds
        return RateLimited(detail, retry_after_seconds=seconds, remedy=remedy)
    kind = _BY_CODE.get(problem.code) if problem else None
    if kind is None or kind.status != answer.status:
        kind = Unavailable if answer.status in RETRIED_STATUS or answer.status >= 500 else BadInput
    return kind(detail, remedy=remedy)


def printable(text: str) -> str:
    """Text of another party as it may be shown on a terminal: in one line, nothing in it moves, hides or colours."""
    shown = text[:MAX_MESSAGE_CHARACTERS]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in shown)


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host == "::1" or host.startswith("127.")
