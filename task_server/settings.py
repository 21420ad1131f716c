"""Settings of the task server. Each field is a flag and an environment variable ATHENA_SERVER_<FIELD>."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from athena.protocol import MAX_WARCS_PER_SHARD, CrawlId


class TaskServerSettings(BaseSettings):
    """Lease shards to miners; keep their submissions, the validators' score sheets and the releases."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="ATHENA_SERVER_",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_implicit_flags=True,
    )

    network: str = "finney"
    """Chain to talk to: finney, test, or the ws:// address of a node (ws://127.0.0.1:9944 for a local dev chain)."""
    netuid: Annotated[int, Field(ge=0, lt=2**16)] = 1
    """Subnet number on that chain."""
    wallet: str = "athena"
    """Name of the wallet (coldkey)."""
    hotkey: str = "default"
    """Name of the hotkey inside the wallet: the receiver that clients sign their requests for."""
    wallet_path: Path = Path("~/.bittensor/wallets")
    """Folder of the wallets."""
    host: str = "127.0.0.1"
    """Address to listen on; put a TLS proxy that keeps paths as they are in front before opening it to the world."""
    port: Annotated[int, Field(ge=0, lt=2**16)] = 8808
    """Port to listen on; 0 takes a free one."""
    state: Path = Path("~/.athena/server")
    """Folder of the default database."""
    database: str | None = None
    """SQLAlchemy URL of the database; by default SQLite in the state folder."""
    events: Path | None = None
    """File to append one JSON line per event to; none by default."""
    rule_version: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,31}$")] = "1"
    """Rules that imported tasks are judged under."""
    replication: Annotated[int, Field(ge=1, le=64)] = 1
    """Miners per task, given to tasks when they are imported."""
    audit_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the tasks that go to two more miners, drawn after the first lease."""
    lease_seconds: Annotated[float, Field(gt=0)] = 300.0
    """A lease without a heartbeat for this long expires."""
    deadline_seconds: Annotated[float, Field(gt=0)] = 12 * 3600.0
    """A lease expires this long after it was issued, heartbeats or not."""
    block_seconds: Annotated[float, Field(gt=0)] = 12.0
    """Seconds per block of the chain: turns the deadline into a block number."""
    refresh_seconds: Annotated[float, Field(gt=0)] = 12.0
    """Pause between two reads of the chain's head and neurons."""
    membership_age_seconds: Annotated[float, Field(gt=0)] = 300.0
    """With a view of the chain older than this, writes are refused (503)."""
    idle_seconds: Annotated[float, Field(ge=1)] = 30.0
    """What a miner that gets no lease is told to wait before it asks again (Retry-After)."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 2**20
    """Largest request body; a larger one is refused before it is read."""
    body_seconds: Annotated[float, Field(gt=0)] = 10.0
    """A request body must have arrived within this time."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lease_seconds > self.deadline_seconds:
            raise ValueError("lease_seconds is longer than deadline_seconds: no heartbeat would ever be due")
        if self.membership_age_seconds <= self.refresh_seconds:
            raise ValueError("membership_age_seconds must be longer than refresh_seconds, or every write is refused")
        return self

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.state.expanduser() / 'ledger.sqlite'}"


class ImportSettings(TaskServerSettings):
    """Cut a crawl's listing into shards and open a task for each. May be repeated: what is there stays as it is."""

    crawl: CrawlId
    """Crawl to import, such as CC-MAIN-2026-43."""
    crawl_url: str = "https://data.commoncrawl.org"
    """Where the crawl lies: an http(s) base address or file:///folder."""
    warcs_per_shard: Annotated[int, Field(ge=1, le=MAX_WARCS_PER_SHARD)] = 4
    """WARC files per shard."""
    limit_warcs: Annotated[int, Field(ge=1)] | None = None
    """Import this many WARC files of the listing, chosen by hash; all by default."""
    opened_block: Annotated[int, Field(ge=0)] | None = None
    """Block that the tasks are opened at; by default the chain's head."""
