"""The wire: what is not asked properly is answered with an error, and never ends the node."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import InvalidStatus

from athena.chain.devnode.block import blake2b_256
from athena.chain.devnode.scale import compact


def exchange(node, *frames: str) -> list[dict]:
    async def run() -> list[dict]:
        async with websocket(node.url) as connection:
            answers = []
            for frame in frames:
                await connection.send(frame)
                answers.append(json.loads(await connection.recv()))
            return answers

    return asyncio.run(run())


def ask(node, method: str, *params) -> dict:
    (answer,) = exchange(node, json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}))
    assert answer["id"] == 7
    return answer


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", -32700),
        ("[" * 100_000, -32700),
        ("[]", -32600),
        ("3", -32600),
        ('{"id": 1}', -32600),
        ('{"id": 1, "method": "system_chain"}', -32601),
        ('{"id": 1, "method": "chain_getBlock", "params": {"hash": 1}}', -32602),
    ],
)
def test_malformed_frames(node, frame, code):
    (answer,) = exchange(node, frame)
    assert answer["error"]["code"] == code


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("author_submitExtrinsic", ["0xzz"]),
        ("author_submitExtrinsic", [5]),
        ("author_submitExtrinsic", [[]]),
        ("chain_getBlockHash", ["one"]),
        ("chain_getHeader", [1, 2, 3]),
        ("state_getKeysPaged", ["0x00", 1_000_000]),
        ("state_queryStorageAt", [["0x00"] * 1001]),
        ("state_queryStorageAt", [None]),
        ("state_call", ["NeuronInfoRuntimeApi_get_neurons_lite", "0x01"]),
        ("account_nextIndex", ["nobody"]),
    ],
)
def test_bad_parameters(node, method, params):
    assert ask(node, method, *params)["error"]["code"] == -32602


@pytest.mark.parametrize("raw", ["0x", "0x00", "0x280502000b7e817aa7a001", "0x" + "ff" * 40, "0x" + "84" * 70_000])
def test_bytes_that_are_no_signed_extrinsic(node, raw):
    assert ask(node, "author_submitAndWatchExtrinsic", raw)["error"]["code"] == 1001


def test_unknown_blocks_and_apis(node):
    assert ask(node, "chain_getHeader", "0x" + "11" * 32)["result"] is None
    assert "UnknownBlock" in ask(node, "chain_getBlock", "0x" + "11" * 32)["error"]["message"]
    assert ask(node, "chain_getBlockHash", 2**31)["result"] is None
    assert "is not found" in ask(node, "state_call", "StakeInfoRuntimeApi_get_stake_fee", "0x")["error"]["message"]


def test_batches_are_answered_in_order(node):
    frame = [{"jsonrpc": "2.0", "id": i, "method": "chain_getBlockHash", "params": [0]} for i in range(3)]
    (answers,) = exchange(node, json.dumps(frame))
    assert [answer["id"] for answer in answers] == [0, 1, 2]
    assert len({answer["result"] for answer in answers}) == 1


def test_the_hash_of_a_block_is_that_of_its_header(node):
    """blake2b of the SCALE header, as on any Substrate chain."""
    block_hash = ask(node, "chain_getBlockHash", 1)["result"]
    header = ask(node, "chain_getHeader", block_hash)["result"]
    hexes = {key: bytes.fromhex(header[key][2:]) for key in ("parentHash", "stateRoot", "extrinsicsRoot")}
    logs = [bytes.fromhex(log[2:]) for log in header["digest"]["logs"]]
    encoded = hexes["parentHash"] + compact(int(header["number"], 16)) + hexes["stateRoot"] + hexes["extrinsicsRoot"]
    encoded += compact(len(logs)) + b"".join(logs)
    assert "0x" + blake2b_256(encoded).hex() == block_hash


def test_a_page_in_a_browser_is_turned_away(node):
    async def run() -> None:
        async with websocket(node.url, origin="https://example.org"):
            pass

    with pytest.raises(InvalidStatus):
        asyncio.run(run())
