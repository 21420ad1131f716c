"""Nodes that fail, each in its way: what comes out is a type of ours, within the time limit."""

from __future__ import annotations

import contextlib
import http
import json
import socket
import threading
import time

import bittensor as bt
import pytest
from bittensor._transport.errors import StateDiscardedError
from websockets.sync.server import serve

from athena.chain.client import Chain
from athena.chain.link import ChainRefused, Link, StateGone, refusal_of
from athena.errors import Misconfigured, Unavailable


@contextlib.contextmanager
def node(handler, **options):
    """A websocket server on loopback; yields its address. Hangs up on everyone at the end."""
    guests = []

    def serve_guest(connection) -> None:
        guests.append(connection)
        handler(connection)

    with serve(serve_guest, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()
        for guest in guests:
            guest.close()


def failure(link: Link, seconds: float = 5.0) -> Exception:
    with pytest.raises(Exception) as caught:
        link.call(lambda client, _: client.block(), seconds=seconds)
    return caught.value


@contextlib.contextmanager
def linked(handler, **options):
    with node(handler, **options) as address, contextlib.closing(Link(address)) as link:
        yield link


def silent(connection) -> None:
    for _ in connection:
        pass


def garbage(connection) -> None:
    for _ in connection:
        connection.send("not json")


def errors(connection) -> None:
    for message in connection:
        frame = json.loads(message)
        connection.send(json.dumps({"id": frame["id"], "error": {"code": -32603, "message": "Internal error"}}))


def hangs_up_in_order(connection) -> None:
    connection.recv()


def hangs_up(connection) -> None:
    connection.recv()
    connection.socket.shutdown(socket.SHUT_RDWR)


def turned_away(connection, request):
    return connection.respond(http.HTTPStatus.TOO_MANY_REQUESTS, "slow down")


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.closing(Link(f"ws://127.0.0.1:{port}")) as link:
        assert isinstance(failure(link), Unavailable)


@pytest.mark.parametrize("handler", [silent, garbage, hangs_up_in_order])
def test_no_answer_ends_at_the_time_limit(handler):
    with linked(handler) as link:
        for _ in range(2):
            started = time.monotonic()
            found = failure(link, seconds=0.5)
            assert isinstance(found, Unavailable) and "no answer in 0.5 s" in str(found)
            assert time.monotonic() - started < 10


@pytest.mark.parametrize("handler", [errors, hangs_up])
def test_node_that_fails_is_unavailable(handler):
    with linked(handler) as link:
        assert isinstance(failure(link), Unavailable)


def test_node_that_turns_us_away_is_unavailable():
    with linked(silent, process_request=turned_away) as link:
        found = failure(link)
    assert isinstance(found, Unavailable) and "ask less often" in str(found)


@pytest.mark.parametrize("network", ["fynney", "http://127.0.0.1", ""])
def test_unknown_network(network):
    with pytest.raises(Misconfigured, match="use finney, test or a ws:// address"):
        Chain(network, 1)


def test_close_is_idempotent_and_ends_the_thread():
    before = threading.active_count()
    link = Link("ws://127.0.0.1:9")
    link.close()
    link.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "error, name",
    [
        (bt.ChainError("no more room", "SpaceLimitExceeded"), "SpaceLimitExceeded"),
        (bt.ChainError("wait 40 blocks", code=bt.ErrorCode.RATE_LIMITED), "RATE_LIMITED"),
        (bt.ChainError("the transaction is outdated", "Stale"), "Stale"),
    ],
)
def test_refusals_keep_the_chains_name(error, name):
    refusal = refusal_of(error)
    assert isinstance(refusal, ChainRefused) and refusal.name == name and refusal.remedy


@pytest.mark.parametrize("error", [bt.ChainError("something"), bt.ChainError("extrinsic dropped", "Dropped")])
def test_what_says_nothing_of_the_request_is_unavailable(error):
    assert type(refusal_of(error)) is Unavailable


def test_state_that_a_node_has_dropped_has_an_error_of_its_own():
    with pytest.raises(bt.ChainError) as caught:
        try:
            raise StateDiscardedError("0xab")
        except StateDiscardedError as error:
            raise bt.ChainError("State already discarded") from error
    gone = refusal_of(caught.value)
    assert type(gone) is StateGone and "archive" in gone.remedy
