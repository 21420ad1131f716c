"""Who sends a request: btauth/1, signed with a hotkey by the SDK's `http_auth`.

The signature covers method, target, body, time, sender and receiver. It gives neither secrecy (TLS does), nor the
right to do anything (the caller asks for that by hotkey), nor a limit on size: cap the body before it is read.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Protocol

import httpx
from bittensor import Wallet, http_auth
from bittensor.sp_core import CRYPTO_SR25519

from athena.chain.wallets import require_canonical
from athena.errors import Unauthorized

# How far a request's nonce (unix nanoseconds) may lie from the receiver's clock. A NonceStore may forget what is
# older than their sum.
MAX_AGE_SECONDS = 10.0
MAX_SKEW_SECONDS = 2.0


class NonceStore(Protocol):
    """Remembers accepted requests for at least MAX_AGE_SECONDS + MAX_SKEW_SECONDS, across all workers of a server."""

    def check_and_store(self, hotkey: str, nonce_ns: int) -> bool:
        """True, and remembered, the first time that `hotkey` uses `nonce_ns`; False ever after. Atomic."""
        ...


class RequestSigner(httpx.Auth):
    """Signs every request, each retry anew, with `wallet`'s hotkey for the server whose hotkey is `receiver`.

    Without a `receiver` the request proves who sent it but is bound to no server; `verify_request` refuses it.
    """

    requires_request_body = True

    def __init__(self, wallet: Wallet, receiver: str | None) -> None:
        self._wallet = wallet
        self._receiver = receiver

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.update(
            http_auth.sign(
                self._wallet,
                method=request.method,
                path=request.url.raw_path.decode("ascii"),  # as it goes over the wire: still escaped, with the query
                body=request.content,
                receiver_ss58=self._receiver,
            )
        )
        yield request


def verify_request(
    headers: Mapping[str, str], body: bytes, *, method: str, target: str, receiver: str, nonces: NonceStore
) -> str:
    """The hotkey that signed this very request to `receiver`, within the time window and for the first time.

    `target` is the request target as received, path and query still escaped (ASGI's `raw_path`); `body` the raw
    bytes. Raises Unauthorized, with a text that is safe to send back. `nonces` is written only once all else holds.
    """
    try:
        caller = http_auth.verify(
            headers,
            body,
            method=method,
            path=target,
            self_hotkey_ss58=receiver,
            max_age=MAX_AGE_SECONDS,
            allowed_skew=MAX_SKEW_SECONDS,
            nonce_store=nonces,
        )
    except http_auth.StaleRequest as error:
        raise Unauthorized(str(error), remedy="set this machine's clock (NTP)") from error
    except http_auth.AuthError as error:
        raise Unauthorized(str(error)) from error
    if caller.crypto_type != CRYPTO_SR25519:
        raise Unauthorized("requests are signed with sr25519 hotkeys only")
    require_canonical(caller.hotkey_ss58)
    return str(caller.hotkey_ss58)
