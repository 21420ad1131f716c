"""The chain, as much of it as Athena uses: who is registered, what was committed, what is paid.

One code path for every network: `finney`, `test`, or the ws:// address of any node, the dev node included. All that
is read is read at finalized blocks, so nothing that anyone saw here is ever taken back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import bittensor as bt
from bittensor import runtime_api, storage

from athena.chain.commitments import (
    Committed,
    plain_fields,
    read_commitments,
    reveal_round,
    sealed_fields,
)
from athena.chain.link import WRITE_SECONDS, ChainRefused, Link
from athena.chain.wallets import hotkey_of, require_coldkey
from athena.errors import BadInput, Misconfigured, NotFound, Unavailable

__all__ = ["Chain", "ChainRefused", "Committed", "Head", "Neuron"]

RAO_PER_TOKEN = 1e9
U16_MAX = 65535  # the chain's 1.0 for scores
# Of the runtime's answer, by uid. The SDK's own metagraph also decodes what owners serve and commit, which may be
# anything.
NEURON_COLUMNS = (
    "hotkeys", "coldkeys", "total_stake", "validator_permit", "incentives", "block_at_registration", "last_update",
)  # fmt: skip
HEAD_SECONDS = 30.0  # three small requests; what follows heads notices a dead node after this time
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Head:
    """A finalized block: its height, and its hash as 0x and 64 hex characters."""

    number: int
    hash: str


@dataclass(frozen=True)
class Neuron:
    """One registered hotkey. `stake` in tokens of the subnet, `incentive` 0 to 1; the rest are block heights."""

    uid: int
    hotkey: str
    coldkey: str
    stake: float
    validator_permit: bool
    incentive: float
    registered_block: int
    last_update: int


class Chain:
    """One thread's client of one subnet. Close it.

    Every verb raises Unavailable for a fault of connection or node (the next call connects anew), ChainRefused with
    the chain's error name, and Misconfigured where settings or wallet are wrong. A verb that writes returns once its
    effect is final; after Unavailable it may or may not have happened, so look before doing it again.
    """

    def __init__(self, network: str, netuid: int, wallet: bt.Wallet | None = None) -> None:
        self._network = network
        self._netuid = netuid
        self._signer = wallet
        self._link = Link(network)
        self._finalized = -1

    def head(self, number: int | None = None) -> Head:
        """The finalized block at height `number`, by default the newest. Raises NotFound for one not yet finalized."""
        return self._link.call(lambda _, substrate: self._head(substrate, number), seconds=HEAD_SECONDS)

    def heads(self) -> Iterator[Head]:
        """Every finalized block from the newest on, each once and in order, without end.

        Never raises Unavailable: while the node is away it waits, then goes on where it was.
        """
        following: int | None = None
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                newest = self.head()
                following = newest.number if following is None else following
                while following <= newest.number:
                    yield newest if following == newest.number else self.head(following)
                    following += 1
                pause = FIRST_PAUSE_SECONDS
                # Asked for once a block, not subscribed to: a subscription dies with its connection and skips blocks
                # that became final together, so the gaps would have to be asked for anyway.
                time.sleep(self._link.call(lambda _, substrate: substrate.block_time()))
            except Unavailable as error:
                log.warning("waiting %.2g s for the chain: %s", pause, error)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def register(self) -> int:
        """The uid of the wallet's hotkey, which is registered first where it is not, the burn paid by the coldkey.

        Raises Misconfigured where the coldkey is absent or locked.
        """
        wallet = self._wallet()
        uid = self._uid(wallet)
        if uid is None:
            require_coldkey(wallet)
            intent = bt.BurnedRegister(netuid=self._netuid)
            # On a connection of its own: this intent goes out shielded, after which the SDK 11.3 signs the coldkey's
            # next extrinsic on the same connection with a used nonce.
            with closing(Link(self._network)) as link:
                link.call(lambda client, _: _settled(lambda: client.execute(intent, wallet)), seconds=WRITE_SECONDS)
            uid = self._uid(wallet)
        if uid is None:
            raise Unavailable("the hotkey is registered, but the node does not show its uid yet")
        return uid

    def commit(self, text: str, *, sealed: bool, reveal_in_blocks: int = 0) -> None:
        """Replaces the hotkey's commitment by `text`, 1 to 384 bytes, anew at each call: at a later block.

        Sealed, nobody can read it until some `reveal_in_blocks` blocks from now (the dev node reveals after a
        number of blocks of its own). Raises BadInput for a text that does not fit, before anything is sent.
        """
        wallet = self._wallet()
        plain = plain_fields(text)

        async def step(client: Any, _: Any) -> None:
            fields = plain
            if sealed:
                beacon, now, block_seconds = await asyncio.gather(
                    client.query(storage.Drand.BeaconConfig), client.timestamp(), client.block_time()
                )
                fields = sealed_fields(text, reveal_round(beacon, now, reveal_in_blocks * block_seconds))
            call = bt.calls.Commitments.set_commitment(netuid=self._netuid, info={"fields": [fields]})
            await _settled(lambda: client.submit_call(call, wallet, signer="hotkey"))

        self._link.call(step, seconds=WRITE_SECONDS)

    def commitments(self, block: int) -> list[Committed]:
        """The last commitment of every hotkey as of finalized `block`, however old, by commit block.

        Raises NotFound for a block not yet finalized; what other parties stored never raises.
        """

        async def step(client: Any, substrate: Any) -> tuple[Any, Any, dict[str, int], dict[str, int]]:
            snapshot = await client.at((await self._head(substrate, block)).number)
            stored, reveals, uids = await asyncio.gather(
                snapshot.query_map(storage.Commitments.CommitmentOf, [self._netuid]),
                snapshot.query_map(storage.Commitments.RevealedCommitments, [self._netuid]),
                snapshot.query_map(storage.SubtensorModule.Uids, [self._netuid]),
            )
            dropped = sorted({hotkey for hotkey, _ in reveals} - {hotkey for hotkey, _ in stored})
            params = [[self._netuid, hotkey] for hotkey in dropped]
            blocks = await snapshot.query_batch(storage.Commitments.LastCommitment, params)
            last_blocks = {hotkey: last for hotkey, last in zip(dropped, blocks, strict=True) if last is not None}
            return stored, reveals, last_blocks, dict(uids)

        return read_commitments(*self._link.call(step))

    def neurons(self, block: int | None = None) -> list[Neuron]:
        """All registered hotkeys by uid as of finalized `block`, by default the newest. Raises NotFound like `head`."""

        async def step(client: Any, substrate: Any) -> Any:
            snapshot = await client.at((await self._head(substrate, block)).number)
            return await snapshot.runtime(runtime_api.SubnetInfoRuntimeApi.get_metagraph, [self._netuid])

        graph = self._link.call(step)
        if not isinstance(graph, dict):
            raise Misconfigured(f"{self._network} has no subnet {self._netuid}", remedy="check the netuid")
        columns = zip(*(graph[name] for name in NEURON_COLUMNS), strict=True)
        return [
            Neuron(uid, str(hotkey), str(coldkey), stake / RAO_PER_TOKEN, permit, incentive / U16_MAX, since, update)
            for uid, (hotkey, coldkey, stake, permit, incentive, since, update) in enumerate(columns)
        ]

    def owner_hotkey(self, block: int | None = None) -> str:
        """The hotkey of the subnet's owner as of finalized `block`, by default the newest; registered or not.

        What incentive it would get, the chain burns or recycles. A subnet without an owner has the account of 32 zero
        bytes, which nobody can register. Raises NotFound like `head`.
        """

        async def step(client: Any, substrate: Any) -> Any:
            snapshot = await client.at((await self._head(substrate, block)).number)
            return await snapshot.query(storage.SubtensorModule.SubnetOwnerHotkey, [self._netuid])

        return str(self._link.call(step))

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Sets the validator's weights, of which only the proportions matter, by hotkey.

        Uids are those of this moment; hotkeys that have none are left out. To burn, give the owner's hotkey a
        weight. Raises BadInput where no registered hotkey has a positive weight, or one is negative or not finite.
        """
        wallet = self._wallet()
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()):
            raise BadInput("weights must be finite and not negative")

        async def step(client: Any, _: Any) -> None:
            uids = dict(await client.query_map(storage.SubtensorModule.Uids, [self._netuid]))
            by_uid = {uids[hotkey]: weight for hotkey, weight in weights.items() if hotkey in uids and weight > 0}
            if not by_uid:
                raise BadInput("no registered hotkey has a positive weight", remedy="give the owner's hotkey one")
            intent = bt.SetWeights(netuid=self._netuid, weights=by_uid)
            await _settled(lambda: client.execute(intent, wallet))

        self._link.call(step, seconds=WRITE_SECONDS)

    def close(self) -> None:
        self._link.close()

    async def _head(self, substrate: Any, number: int | None) -> Head:
        if number is None or number > self._finalized:
            self._finalized = max(self._finalized, await substrate.finalized_block_number())
        wanted = self._finalized if number is None else number
        if not 0 <= wanted <= self._finalized:
            raise NotFound(f"block {wanted} is not finalized; the newest that is: {self._finalized}")
        return Head(wanted, await substrate.block_hash(wanted))

    def _uid(self, wallet: bt.Wallet) -> int | None:
        params = [self._netuid, hotkey_of(wallet)]
        uid = self._link.call(lambda client, _: client.query(storage.SubtensorModule.Uids, params))
        return None if uid is None else int(uid)

    def _wallet(self) -> bt.Wallet:
        if self._signer is None:
            raise Misconfigured("this needs a wallet", remedy="open the chain with one")
        return self._signer


async def _settled(submit: Callable[[], Awaitable[bt.ExtrinsicResult]]) -> None:
    """Submits once, and once more if the nonce was used already: by another process of the same key, after the SDK
    had looked it up. A stale extrinsic is refused unexecuted, so nothing happens twice."""
    result = await submit()
    if result.error is not None and result.error.name == "Stale":
        result = await submit()
    result.raise_for_failure()
