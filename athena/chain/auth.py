"""Who sends a request: btauth/1, signed with a hotkey by the SDK's `http_auth`.

The signature covers method, target, body, time, sender and receiver. It gives neither secrecy (TLS does), nor the
right to do anything (the caller asks for that by hotkey), nor a limit on size: cap the body before it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import httpx
from bittensor import Wallet, http_auth
from bittensor.sp_core import CRYPTO_SR25519

from athena.chain.wallets import hotkey_of, require_canonical, verify
from athena.errors import Unauthorized

# How far a request's nonce (unix nanoseconds) may lie from the receiver's clock: what is older than their sum need
# not be remembered.
MAX_AGE_SECONDS = 10.0
MAX_SKEW_SECONDS = 2.0

HEADER_REPLY_SIGNATURE = "X-Athena-Signature"
HEADER_REQUEST_SIGNATURE = str(http_auth.HEADER_SIGNATURE)
REQUEST_HEADERS: Mapping[str, str] = {
    str(http_auth.HEADER_VERSION): "The version of btauth: 1.",
    str(http_auth.HEADER_HOTKEY): "Who sends the request: an ss58 address.",
    str(http_auth.HEADER_RECEIVER): "Whom it is for: the server's hotkey, which GET /v1/server tells.",
    str(http_auth.HEADER_NONCE): "When it was signed, in nanoseconds since 1970; good for a few seconds, and once.",
    HEADER_REQUEST_SIGNATURE: "sr25519 over method, target, sha256 of the body, nonce, sender, receiver: 0x and hex.",
}
"""What a signed request carries, all of it."""


@dataclass(frozen=True)
class Proof:
    """Who signed a request, and the nonce that makes it unlike any other of that hotkey.

    The signature alone does not stop a replay: whoever acts on the request must spend the nonce with it, in the same
    transaction, and refuse one that was spent.
    """

    hotkey: str
    nonce_ns: int


class _SpentLater:
    """A nonce store that accepts everything: see Proof."""

    def check_and_store(self, hotkey: str, nonce_ns: int) -> bool:
        return True


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


def verify_request(headers: Mapping[str, str], body: bytes, *, method: str, target: str, receiver: str) -> Proof:
    """Who signed this very request to `receiver`, within the time window.

    `target` is the request target as received, path and query still escaped (ASGI's `raw_path`); `body` the raw
    bytes. Raises Unauthorized, with a text that is safe to send back.
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
            nonce_store=_SpentLater(),
        )
    except http_auth.StaleRequest as error:
        raise Unauthorized(str(error), remedy="set this machine's clock (NTP)") from error
    except http_auth.AuthError as error:
        raise Unauthorized(str(error)) from error
    if caller.crypto_type != CRYPTO_SR25519:
        raise Unauthorized("requests are signed with sr25519 hotkeys only")
    if not 0 <= caller.nonce_ns < 2**63:
        raise Unauthorized("the nonce is no time")
    require_canonical(caller.hotkey_ss58)
    return Proof(str(caller.hotkey_ss58), caller.nonce_ns)


class ReplySigner:
    """Signs what a server answers to signed requests, with its hotkey."""

    def __init__(self, wallet: Wallet) -> None:
        self._keypair = wallet.hotkey  # kept: the wallet reads its file at every access
        self.hotkey = hotkey_of(wallet)

    def sign(self, request_signature: str, status: int, body: bytes) -> str:
        """The value of HEADER_REPLY_SIGNATURE: 128 hex characters."""
        return bytes(self._keypair.sign(_reply_bytes(self.hotkey, request_signature, status, body))).hex()


def verify_reply(signature: str | None, body: bytes, *, request_signature: str, status: int, server: str) -> None:
    """Raises Unauthorized unless `server` signed this answer to the request that bore `request_signature`."""
    if signature is None:
        raise Unauthorized(f"the reply is not signed by {server}", remedy="check the task server's address")
    verify(server, _reply_bytes(server, request_signature, status, body), signature)


def _reply_bytes(server: str, request_signature: str, status: int, body: bytes) -> bytes:
    """The request's signature stands for all of the request: its method, path, body, nonce and both hotkeys."""
    digest = hashlib.sha256(body).hexdigest()
    return "\n".join(("athena-reply/1", server, request_signature, str(status), digest)).encode()
