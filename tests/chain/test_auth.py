"""Attacks on btauth/1 over a real socket: every one must end in 401."""

from __future__ import annotations

import threading
import time

import httpx
import pytest
import uvicorn
from bittensor import http_auth
from bittensor.sp_core import CRYPTO_ED25519, Keypair, ss58_decode, ss58_encode
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from athena.chain.auth import MAX_AGE_SECONDS, MAX_SKEW_SECONDS, RequestSigner, verify_request
from athena.chain.wallets import hotkey_of
from athena.errors import Unauthorized


def application(receiver: str) -> FastAPI:
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT"])
    async def whoami(request: Request) -> JSONResponse:
        query = request.scope["query_string"]
        target = request.scope["raw_path"].decode("ascii") + (f"?{query.decode('ascii')}" if query else "")
        try:
            caller = verify_request(
                request.headers,
                await request.body(),
                method=request.method,
                target=target,
                receiver=receiver,
            )
        except Unauthorized as error:
            return JSONResponse({"detail": str(error)}, status_code=error.status)
        return JSONResponse({"caller": caller.hotkey})

    return app


@pytest.fixture(scope="module")
def server(wallet_of):
    """Base URL of a server that answers with the caller's hotkey."""
    config = uvicorn.Config(application(hotkey_of(wallet_of("server"))), port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server) as client:
        yield client


@pytest.fixture
def signer(wallet_of):
    return RequestSigner(wallet_of("alice"), hotkey_of(wallet_of("server")))


def signed(wallet, receiver: str | None, *, path="/claim", body=b'{"count":1}', method="POST", age_seconds=0.0):
    """Headers as an attacker who may choose the time would make them."""
    nonce = time.time_ns() - int(age_seconds * 1e9)
    return http_auth.sign(wallet, method=method, path=path, body=body, receiver_ss58=receiver, nonce_ns=nonce)


def refusal(response: httpx.Response) -> str:
    assert response.status_code == 401, response.text
    return response.json()["detail"]


@pytest.mark.parametrize(
    "method, target, body",
    [
        ("POST", "/claim", b'{"count":1}'),
        ("GET", "/leases", b""),
        ("GET", "/a%20b/%C3%BC?q=x%20y&empty=&q=%2F", b""),
        ("PUT", "/blob?x=1", bytes(range(256)) * 4096),
    ],
)
def test_signed_request_names_its_sender(client, signer, wallet_of, method, target, body):
    response = client.request(method, target, content=body, auth=signer)
    assert response.json() == {"caller": hotkey_of(wallet_of("alice"))}


def test_streamed_body_and_each_repetition_is_signed_anew(client, signer):
    for _ in range(3):
        assert client.post("/claim", content=iter([b"one", b"two"]), auth=signer).status_code == 200


async def _async_request(url: str, signer: RequestSigner) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.post(url + "/claim", json={"count": 1}, auth=signer)).status_code


def test_async_client_signs_too(server, signer):
    import asyncio

    assert asyncio.run(_async_request(server, signer)) == 200


@pytest.mark.parametrize(
    "method, target, body",
    [
        ("POST", "/claim", b'{"count":9}'),
        ("POST", "/claim", b""),
        ("POST", "/release", b'{"count":1}'),
        ("POST", "/claim/", b'{"count":1}'),
        ("POST", "/%63laim", b'{"count":1}'),
        ("POST", "/claim?count=9", b'{"count":1}'),
        ("PUT", "/claim", b'{"count":1}'),
    ],
)
def test_another_request_than_the_signed_one(client, wallet_of, method, target, body):
    headers = signed(wallet_of("alice"), hotkey_of(wallet_of("server")))
    assert "does not verify" in refusal(client.request(method, target, content=body, headers=headers))


def test_query_is_signed(client, wallet_of):
    headers = signed(
        wallet_of("alice"), hotkey_of(wallet_of("server")), path="/sheets?hotkey=a", body=b"", method="GET"
    )
    assert "does not verify" in refusal(client.get("/sheets?hotkey=b", headers=headers))


def test_relay_to_another_server(client, wallet_of):
    headers = signed(wallet_of("alice"), hotkey_of(wallet_of("mallory")))
    assert "different receiving hotkey" in refusal(client.post("/claim", content=b'{"count":1}', headers=headers))
    headers[http_auth.HEADER_RECEIVER] = hotkey_of(wallet_of("server"))
    assert "does not verify" in refusal(client.post("/claim", content=b'{"count":1}', headers=headers))


def test_unbound_request(client, wallet_of):
    response = client.post("/claim", json={"count": 1}, auth=RequestSigner(wallet_of("alice"), receiver=None))
    assert "receiver-bound" in refusal(response)


@pytest.mark.parametrize("age_seconds", [MAX_AGE_SECONDS + 1, 86_400.0, -MAX_SKEW_SECONDS - 1, -1e12])
def test_outside_the_time_window(client, wallet_of, age_seconds):
    headers = signed(wallet_of("alice"), hotkey_of(wallet_of("server")), age_seconds=age_seconds)
    assert "set this machine's clock" in refusal(client.post("/claim", content=b'{"count":1}', headers=headers))


def test_stolen_identity(client, wallet_of):
    headers = signed(wallet_of("mallory"), hotkey_of(wallet_of("server")))
    headers[http_auth.HEADER_HOTKEY] = hotkey_of(wallet_of("alice"))
    assert "does not verify" in refusal(client.post("/claim", content=b'{"count":1}', headers=headers))


def test_same_key_under_another_networks_address(client, wallet_of):
    wallet = wallet_of("alice")
    alias = ss58_encode(ss58_decode(hotkey_of(wallet)), 0)
    nonce, receiver = time.time_ns(), hotkey_of(wallet_of("server"))
    payload = http_auth.build_payload(
        scheme="sr25519",
        method="POST",
        path="/claim",
        body=b"",
        nonce_ns=nonce,
        sender_ss58=alias,
        receiver_ss58=receiver,
    )
    headers = signed(wallet, receiver) | {
        http_auth.HEADER_HOTKEY: alias,
        http_auth.HEADER_NONCE: str(nonce),
        http_auth.HEADER_SIGNATURE: bytes(wallet.hotkey.sign(payload)).hex(),
    }
    assert "address of this network" in refusal(client.post("/claim", headers=headers))


def test_key_of_another_scheme(client, wallet_of):
    keypair = Keypair.create_from_mnemonic(Keypair.generate_mnemonic(12), CRYPTO_ED25519)
    headers = signed(keypair, hotkey_of(wallet_of("server")))
    assert "sr25519" in refusal(client.post("/claim", content=b'{"count":1}', headers=headers))


@pytest.mark.parametrize(
    "change",
    [
        {http_auth.HEADER_VERSION: "2"},
        {http_auth.HEADER_HOTKEY: "5Alice"},
        {http_auth.HEADER_HOTKEY: ""},
        {http_auth.HEADER_NONCE: "soon"},
        {http_auth.HEADER_NONCE: "9" * 5000},
        {http_auth.HEADER_NONCE: "-1"},
        {http_auth.HEADER_CRYPTO: "none"},
        {http_auth.HEADER_SIGNATURE: "0x"},
        {http_auth.HEADER_SIGNATURE: "xyz"},
        {http_auth.HEADER_SIGNATURE: "00" * 64},
    ],
)
def test_malformed_headers(client, wallet_of, change):
    headers = signed(wallet_of("alice"), hotkey_of(wallet_of("server"))) | change
    refusal(client.post("/claim", content=b'{"count":1}', headers=headers))


def test_no_headers(client):
    assert "missing" in refusal(client.post("/claim", content=b'{"count":1}'))


@pytest.mark.parametrize(
    "header", ["HEADER_VERSION", "HEADER_HOTKEY", "HEADER_NONCE", "HEADER_SIGNATURE", "HEADER_RECEIVER"]
)
def test_each_header_is_needed(client, wallet_of, header):
    headers = signed(wallet_of("alice"), hotkey_of(wallet_of("server")))
    del headers[getattr(http_auth, header)]
    refusal(client.post("/claim", content=b'{"count":1}', headers=headers))


def test_refused_request_does_not_use_up_a_nonce(client, wallet_of):
    headers = signed(wallet_of("alice"), hotkey_of(wallet_of("server")))
    refusal(client.post("/claim", content=b"tampered", headers=headers))
    assert client.post("/claim", content=b'{"count":1}', headers=headers).status_code == 200
