"""Settings of the task server. Each field is a flag and an environment variable ATHENA_SERVER_<FIELD>."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

from athena.protocol import MAX_WARCS_PER_SHARD, CrawlId, RuleVersion

COMMON_CRAWL = "https://data.commoncrawl.org"


class DatabaseSettings(BaseSettings):
    """Where the ledger lies."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="ATHENA_SERVER_",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_implicit_flags=True,
    )

    state: Path = Path("~/.athena/server")
    """Folder of the default database."""
    database: str | None = None
    """SQLAlchemy URL of the database; by default SQLite in the state folder."""

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.state.expanduser() / 'ledger.sqlite'}"


class MigrateSettings(DatabaseSettings):
    """Bring the tables of a database to the version that this release works with. Stop its servers before."""


class BackupSettings(DatabaseSettings):
    """\
    Write the whole ledger, as it is at one moment, to a file. Servers go on meanwhile.

    The file fits both kinds of database. It tells what miners have not yet revealed: keep it as the database itself.
    """

    file: CliPositionalArg[Path]
    """File to write; one of that name is replaced once the new one is whole."""


class RestoreSettings(DatabaseSettings):
    """Fill an empty database with the ledger of a backup; nothing is written unless all of it is sound."""

    file: CliPositionalArg[Path]
    """File that `athena server backup` wrote."""


class LedgerSettings(DatabaseSettings):
    """What every command that works on the ledger needs: the ledger, the chain, and how crawls are opened."""

    network: str = "finney"
    """Chain to talk to: finney, test, or the ws:// address of a node (ws://127.0.0.1:9944 for a local dev chain)."""
    netuid: Annotated[int, Field(ge=0, lt=2**16)] = 1
    """Subnet number on that chain."""
    events: Path | None = None
    """File to append one JSON line per event to; none by default."""
    rule_version: RuleVersion = "1"
    """Rules that imported tasks are judged under."""
    replication: Annotated[int, Field(ge=1, le=64)] = 1
    """Miners per task, given to tasks when they are imported."""
    crawl_url: str = COMMON_CRAWL
    """Where the crawl lies: an http(s) base address or file:///folder."""
    collinfo_url: str | None = None
    """List of all crawls (collinfo.json); by default Common Crawl's where the crawl is Common Crawl's, else none."""
    contact: str = ""
    """E-mail or web address that the crawl's operators find in the User-Agent."""


class TaskServerSettings(LedgerSettings):
    """Lease shards to miners; keep their submissions, the validators' score sheets and the releases."""

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
    new_miner_copies: Annotated[int, Field(ge=0, le=8)] = 1
    """More miners for a task whose first miner has fewer than trusted_after passes in a row."""
    trusted_after: Annotated[int, Field(ge=0)] = 10
    """Passes in a row after which a miner is no longer new."""
    initial_quota: Annotated[int, Field(ge=1)] = 16
    """Leases per day of a coldkey without a record; a pass doubles it, a failure takes one off."""
    max_quota: Annotated[int, Field(ge=1)] = 1024
    """Leases per day that no record raises a coldkey above."""
    min_validator_stake: Annotated[float, Field(ge=0)] = 0.0
    """Stake (in the subnet's token) that a validator needs, beside its permit, to post score sheets."""
    writes_per_minute: Annotated[int, Field(ge=1)] = 240
    """Signed requests that one hotkey may send in a minute."""
    requests_per_minute: Annotated[int, Field(ge=1)] = 3000
    """Requests of any kind that one address may send in a minute."""
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
        if self.initial_quota > self.max_quota:
            raise ValueError("initial_quota is above max_quota")
        if self.membership_age_seconds <= self.refresh_seconds:
            raise ValueError("membership_age_seconds must be longer than refresh_seconds, or every write is refused")
        return self


class ImportSettings(LedgerSettings):
    """\
    Cut a crawl's listing into shards and open a task for each.

    An import that was interrupted goes on when it is started again, and what is there already stays as it is.

    The newest crawl, a month of news, a hundred files to begin with, a folder laid out like Common Crawl:

        athena server import latest --contact ops@example.org
        athena server import CC-NEWS-2026-10
        athena server import CC-MAIN-2026-43 --limit-warcs 100
        athena server import LOCAL-1 --crawl-url file:///srv/crawl

    Any WARC files: give a name, and a file with one https:// address or local path a line.

        athena server import LOCAL-mine --list warcs.txt
    """

    crawl: CliPositionalArg[Literal["latest"] | CrawlId]
    """A crawl's id (CC-MAIN-2026-43, CC-NEWS-2026-10, or LOCAL- and a name of your own), or latest."""
    list: Path | None = None
    """File with one WARC file a line, all on one server or all on this machine; may be gzipped. Replaces crawl_url."""
    warcs_per_shard: Annotated[int, Field(ge=1, le=MAX_WARCS_PER_SHARD)] = 4
    """WARC files per shard."""
    limit_warcs: Annotated[int, Field(ge=1)] | None = None
    """Import this many WARC files of the listing, chosen by hash; all by default."""
    opened_block: Annotated[int, Field(ge=0)] | None = None
    """Block from which on the tasks are drawn; by default a few blocks after the chain's head."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.list is not None and self.crawl == "latest":
            raise ValueError("a list of files needs a crawl id of its own, such as LOCAL-mine")
        return self
