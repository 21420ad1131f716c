"""The drand beacon, offline: a slowed-down clock on which the next round is always quicknet's round 1000.

Commitments are sealed to a round of the drand beacon and open when the chain has that round's signature. Without a
network there is no beacon; but one pulse's signature is as good as another for the cryptography, so this chain stores
quicknet's published pulse of round 1000, and everything sealed here is sealed to that round: it hides nothing.

A client chooses the round by the same rule here and on finney, from storage it reads at the block it commits at:

    config   = Drand.BeaconConfig                          (period and genesis_time in seconds)
    reveal   = Timestamp.Now / 1000 + blocks until the reveal × block time
    round    = 1 + ceil((reveal − config.genesis_time) / config.period)

On finney period is 3 and genesis_time 1692803367, quicknet's own. Here period is 1,000,000, and genesis_time lies
998.5 periods before the chain's time (it is moved when it is off by more than a day): round 1000 is the answer for
every reveal within the next four days. LastStoredRound stays 999, so 1000 is never in the past. What is sealed to an
earlier round fails as expired, what is sealed to a later one never opens.
"""

from __future__ import annotations

import hashlib

from athena.chain.devnode.execution import Execution

ROUND = 1000
SIGNATURE = bytes.fromhex(
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"
)
"""Quicknet's signature of round 1000, as https://api.drand.sh/52db9ba7…/public/1000 publishes it."""
PERIOD_SECONDS = 1_000_000
_PERIODS_SINCE_GENESIS = 998.5
_MAX_DRIFT_SECONDS = 86_400


def initialize(block: Execution) -> None:
    """Keeps the beacon's clock where the next round is 1000."""
    storage = block.storage
    wanted = round(block.timestamp_ms / 1000 - _PERIODS_SINCE_GENESIS * PERIOD_SECONDS)
    config = storage.get("Drand", "BeaconConfig")
    if config["period"] == PERIOD_SECONDS and abs(config["genesis_time"] - wanted) <= _MAX_DRIFT_SECONDS:
        return
    config |= {"period": PERIOD_SECONDS, "genesis_time": wanted}
    storage.put("Drand", "BeaconConfig", value=config)
    storage.put("Drand", "LastStoredRound", value=ROUND - 1)
    block.deposit_event("Drand", "BeaconConfigChanged")


def store_pulse(block: Execution) -> None:
    """Stores the pulse of round 1000, once."""
    if block.storage.get_raw("Drand", "Pulses", ROUND) is not None:
        return
    pulse = {"round": ROUND, "randomness": hashlib.sha256(SIGNATURE).digest(), "signature": SIGNATURE}
    block.storage.put("Drand", "Pulses", ROUND, value=pulse)
    block.deposit_event("Drand", "NewPulse", {"rounds": [ROUND]})
