"""The transaction pool: what was submitted and waits for a block. In memory only, like a real node's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from athena.chain.devnode.extrinsics import Invalid, Signed, stale

MAX_WAITING = 8192
MAX_PER_BLOCK = 256


class Pool:
    """Extrinsics by signer and nonce. Those whose nonce is next are ready, later ones wait for the gap to fill."""

    def __init__(self, account_nonce: Callable[[str], int]) -> None:
        self._account_nonce = account_nonce
        self._waiting: dict[tuple[str, int], Signed] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, extrinsic: Signed) -> bool:
        """Whether the extrinsic is ready; raises Invalid for a used nonce, a second one for it, or a full pool."""
        if extrinsic.nonce < self._account_nonce(extrinsic.signer):
            raise stale()
        slot = (extrinsic.signer, extrinsic.nonce)
        if slot in self._waiting:
            if self._waiting[slot].raw == extrinsic.raw:
                raise Invalid("Already Imported", message="Transaction is already imported", rpc_code=1013)
            raise Invalid(
                "The transaction has too low priority to replace another transaction already in the pool.",
                message="Priority is too low: (0 vs 0)",
                rpc_code=1014,
            )
        if len(self._waiting) >= MAX_WAITING:
            raise Invalid("The transaction pool is full", message="Immediately Dropped", rpc_code=1016)
        self._waiting[slot] = extrinsic
        return extrinsic.nonce < self.next_nonce(extrinsic.signer)

    def next_nonce(self, signer: str) -> int:
        """The account's next nonce, extrinsics that are ready counted in."""
        nonce = self._account_nonce(signer)
        while (signer, nonce) in self._waiting:
            nonce += 1
        return nonce

    def ready(self) -> list[Signed]:
        """Extrinsics for the next block: in the order they came, each signer's in the order of nonces."""
        return list(self._in_order())[:MAX_PER_BLOCK]

    def _in_order(self) -> Iterator[Signed]:
        signers = dict.fromkeys(signer for signer, _ in self._waiting)
        for signer in signers:
            for nonce in range(self._account_nonce(signer), self.next_nonce(signer)):
                yield self._waiting[signer, nonce]

    def drop(self, extrinsic: Signed) -> None:
        self._waiting.pop((extrinsic.signer, extrinsic.nonce), None)

    def expired(self, number: int) -> list[Signed]:
        """Takes out, and returns, what block `number` may no longer include: its era is over or its nonce used."""
        gone = [
            extrinsic
            for (signer, nonce), extrinsic in self._waiting.items()
            if (extrinsic.last_block is not None and extrinsic.last_block < number)
            or nonce < self._account_nonce(signer)
        ]
        for extrinsic in gone:
            self.drop(extrinsic)
        return gone
