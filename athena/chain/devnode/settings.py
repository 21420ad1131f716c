"""Settings of the dev chain. What describes the chain itself is fixed in its database when block 0 is made."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Self

import bittensor_core
from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from athena.errors import Misconfigured

MIN_VALIDATOR_TAO = 1000.0
"""Stake that the chain asks of a hotkey that sets weights: mainnet's StakeThreshold."""

Amount = Annotated[float, Field(ge=0, le=21e6)]


class DevnodeSettings(BaseSettings):
    """A chain for one machine: a stand-in for the ledger, with the real codec, signatures, limits and errors."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="ATHENA_DEVCHAIN_",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_implicit_flags=True,
    )

    database: Path = Path("~/.athena/devchain.sqlite")
    """SQLite file with every block and every past state; a restart goes on from it."""
    host: str = "127.0.0.1"
    """Loopback address to listen on; any other is refused."""
    port: Annotated[int, Field(ge=0, lt=2**16)] = 9944
    """Port to listen on; 0 takes a free one, which the event `devchain.ready` names."""
    netuid: Annotated[int, Field(ge=1, lt=4096)] = 1
    """The subnet that exists on this chain."""
    tempo: Annotated[int, Field(ge=2, lt=2**16)] = 40
    """Blocks from one epoch to the next; mainnet subnets have 360 or more."""
    block_seconds: Annotated[float, Field(ge=0.05, le=60)] = 0.25
    """Seconds from one block to the next; 12 on finney."""
    reveal_blocks: Annotated[int, Field(ge=1)] = 8
    """Blocks from a sealed commitment to its reveal."""
    commit_reveal: bool = False
    """Weights go in as timelocked commits, which are stored but cannot be revealed offline."""
    stakes: dict[str, Amount] = Field(default_factory=dict)
    """TAO at stake behind hotkeys (ss58 addresses) from block 0 on: validators, 1000 or more each."""
    balances: dict[str, Amount] = Field(default_factory=dict)
    """Free TAO of coldkeys (ss58 addresses) at block 0; registering a hotkey burns some."""
    owner_hotkey: str | None = None
    """Hotkey (ss58 address) of the subnet's owner from block 0 on, registered or not; none by default."""
    events: Path | None = None
    """File to append one JSON line per event to; none by default."""

    @model_validator(mode="after")
    def _loopback_only(self) -> Self:
        if self.host != "localhost" and not _is_loopback(self.host):
            raise Misconfigured(
                f"the dev chain does not listen on {self.host}: it is no network's chain",
                remedy="use 127.0.0.1, and a real network (finney, test) for more than one machine",
            )
        return self

    @model_validator(mode="after")
    def _keys_and_stakes(self) -> Self:
        for address in (*self.stakes, *self.balances, *([self.owner_hotkey] if self.owner_hotkey else [])):
            bittensor_core.ss58_decode(address)  # ValueError for what is no address
        for hotkey, tao in self.stakes.items():
            if tao < MIN_VALIDATOR_TAO:
                raise ValueError(f"{hotkey} needs a stake of {MIN_VALIDATOR_TAO:g} TAO to set weights, not {tao:g}")
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
