"""The load that `bench_server.py` puts on a server: signed requests over HTTP/1.1, as many at a time as it has clients.

A round is signed just before it starts and judged after it ended, so that while it lasts nearly all of the machine
is the server's.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import uvloop
from bittensor import http_auth
from bittensor.sp_core import Keypair

from athena.chain.auth import HEADER_REPLY_SIGNATURE, HEADER_REQUEST_SIGNATURE, verify_reply
from athena.wire import IDEMPOTENCY_KEY, ClaimRequest, Leases

HOST = "127.0.0.1"
CLAIM, NOOP = "/v1/leases", "/v1/noop"
ONE_LEASE = ClaimRequest(count=1).model_dump_json().encode()
END_OF_HEAD = b"\r\n\r\n"


def members(count: int) -> list[Keypair]:
    """The same hotkeys at every run."""
    return [Keypair.create_from_seed(hashlib.sha256(b"member %d" % i).digest()) for i in range(count)]


@dataclass(frozen=True)
class Request:
    """One signed request as it goes over the wire."""

    hotkey: str
    signature: str
    raw: bytes

    @classmethod
    def signed(cls, member: Keypair, path: str, receiver: str) -> Request:
        """A claim of one lease, or the same request to the route that does nothing."""
        auth = http_auth.sign(member, method="POST", path=path, body=ONE_LEASE, receiver_ss58=receiver)
        headers = {
            "Host": HOST,
            "Content-Type": "application/json",
            "Content-Length": str(len(ONE_LEASE)),
            IDEMPOTENCY_KEY: uuid.uuid4().hex,
            **auth,
        }
        lines = (f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()))
        raw = "\r\n".join(lines).encode() + END_OF_HEAD + ONE_LEASE
        return cls(member.ss58_address, auth[HEADER_REQUEST_SIGNATURE], raw)


@dataclass(frozen=True)
class Answer:
    """What came back for one request, and after how long."""

    request: Request
    seconds: float
    raw: bytes

    def body(self, server: str) -> bytes:
        """The body of a 200 that the hotkey `server` signed for this request; anything else raises."""
        head, _, body = self.raw.partition(END_OF_HEAD)
        status, *lines = head.decode("latin-1").split("\r\n")
        if status.split(" ")[1] != "200":
            raise RuntimeError(f"{status}: {body[:500]!r}")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        signature = headers.get(HEADER_REPLY_SIGNATURE.lower())
        verify_reply(signature, body, request_signature=self.request.signature, status=200, server=server)
        return body

    def lease_id(self, server: str) -> str:
        """Of the one lease that a claim was answered with."""
        (lease,) = Leases.model_validate_json(self.body(server)).leases
        if lease.hotkey != self.request.hotkey:
            raise RuntimeError(f"{self.request.hotkey} was given a lease of {lease.hotkey}")
        return lease.id


@dataclass(frozen=True)
class Burst:
    """All answers to some requests. `cpu_seconds` is what this process itself needed meanwhile."""

    seconds: float
    cpu_seconds: float
    answers: Sequence[Answer]


def fire(port: int, requests: Sequence[Request], num_clients: int) -> Burst:
    """Sends all requests from `num_clients` connections, each sending its next one once its last one is answered."""
    return uvloop.run(_fire(port, requests, num_clients))


async def _fire(port: int, requests: Sequence[Request], num_clients: int) -> Burst:
    loop = asyncio.get_running_loop()
    left = iter(requests)
    answers: list[Answer] = []
    clients = [_Client(left, answers, loop.create_future()) for _ in range(num_clients)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, HOST, port)  # type: ignore[misc]
    gc.disable()
    started, cpu_started = time.perf_counter(), time.process_time()
    for client in clients:
        client.send()
    await asyncio.gather(*(client.done for client in clients))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    gc.enable()
    return Burst(seconds, cpu_seconds, answers)


class _Client(asyncio.Protocol):
    """One connection: a request at a time, without pause."""

    def __init__(self, requests: Iterator[Request], answers: list[Answer], done: asyncio.Future[None]) -> None:
        self.done = done
        self._requests = requests
        self._answers = answers
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("the server hung up"))

    def send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._request = request
        self._sent_at = time.perf_counter()
        self._transport.write(request.raw)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(END_OF_HEAD)
        if not found or len(body) < _content_length(head):
            return
        self._answers.append(Answer(self._request, time.perf_counter() - self._sent_at, self._received))
        self._received = b""
        self.send()


def _content_length(head: bytes) -> int:
    name = b"\r\ncontent-length:"
    start = head.lower().index(name) + len(name)
    return int(head[start:].partition(b"\r\n")[0])
