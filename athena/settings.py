"""Settings of the nodes: typed, frozen, one class per room. Each field is an environment variable and a flag.

`ATHENA_WALLET=alice python -m neurons.miner --netuid 63` and `--wallet alice` say the same; the flag wins.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict

from athena.errors import Misconfigured

PUBLIC_NETWORKS = ("finney", "test")


class NodeSettings(BaseSettings):
    """What every node needs: who it is, and where the chain, the hub, the crawl and the task server are."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_prefix="ATHENA_",
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
    """Name of the hotkey inside the wallet; the only key that a node needs on its machine."""
    wallet_path: Path = Path("~/.bittensor/wallets")
    """Folder of the wallets."""
    task_server: str = "http://127.0.0.1:8808"
    """Address of the task server."""
    hub: str = "hf://"
    """Where datasets and releases lie: hf:// (Hugging Face Hub) or file:///folder (one machine)."""
    crawl_url: str = "https://data.commoncrawl.org"
    """Where WARC files lie: an http(s) base address or file:///folder."""
    contact: str = ""
    """E-mail or web address that the crawl's operators find in the User-Agent."""
    pay_burn: bool = False
    """Register the hotkey at start if it is not registered yet, paying the subnet's burn from the coldkey."""
    state: Path = Path("~/.athena")
    """Folder of this node's durable state; a restart goes on from it."""
    events: Path | None = None
    """File to append one JSON line per event to; none by default."""

    @model_validator(mode="after")
    def _no_local_hub_on_public_networks(self) -> Self:
        if self.network in PUBLIC_NETWORKS and self.hub.startswith("file:"):
            raise ValueError(f"hub {self.hub} cannot be read by others on {self.network}: use hf://")
        return self

    @property
    def state_folder(self) -> Path:
        return self.state.expanduser()

    @property
    def wallets_folder(self) -> Path:
        return self.wallet_path.expanduser()


class MinerSettings(NodeSettings):
    """Refine shards of the crawl, publish the datasets, commit to them on chain."""

    state: Path = Path("~/.athena/miner")
    """Folder of this node's durable state; a restart goes on from it."""
    recipe: str = "fineweb-1"
    """A recipe's name (fineweb-1, strict-1) or the path of a Python file that defines RECIPE."""
    namespace: str = "athena-miners"
    """Hub user or organisation that the datasets are published under."""
    commit: Literal["sealed", "plain"] = "sealed"
    """sealed: the commitment is encrypted until the task's deadline, so nobody can copy the data; plain: for dev."""
    commit_read_blocks: Annotated[int, Field(ge=1)] = 25
    """Blocks between two reads of the validators; two of these lie between two commitments of this miner."""
    idle_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Pause before asking again when the task server has no work."""
    leases: Annotated[int | None, Field(ge=1, le=64)] = None
    """Tasks worked on at a time; by default one for every two cores, at most 8."""
    workers: Annotated[int | None, Field(ge=1, le=256)] = None
    """Refinery processes for each of them; by default the cores are shared out evenly."""
    disk_gib: Annotated[float, Field(ge=1)] = 50.0
    """Most that the state folder may take: new tasks are leased only while another GiB for each of them fits."""
    dry_run: bool = False
    """Lease nothing: refine a sample of the crawl, judge the result as a validator would, print the verdicts, exit."""
    dry_run_warc: Path | None = None
    """WARC file to do that with; by default the beginning of one that the task server has an open task for."""

    @property
    def num_leases(self) -> int:
        """At most 8 by default: two commitments lie ten minutes apart, so more would mostly wait for theirs."""
        return self.leases or max(1, min(8, _cores() // 2))

    @property
    def workers_per_lease(self) -> int:
        return self.workers or max(1, _cores() // self.num_leases)

    @model_validator(mode="after")
    def _a_sample_for_dry_runs_only(self) -> Self:
        if self.dry_run_warc is not None and not self.dry_run:
            raise ValueError("--dry-run-warc says nothing without --dry-run")
        return self

    @model_validator(mode="after")
    def _sealed_on_public_networks(self) -> Self:
        if self.network in PUBLIC_NETWORKS and self.commit == "plain":
            raise ValueError(f"plain commitments on {self.network} let others copy the data: use --commit sealed")
        return self


class ValidatorSettings(NodeSettings):
    """Verify, proxy-train and score what miners committed to; set weights."""

    state: Path = Path("~/.athena/validator")
    """Folder of this node's durable state; a restart goes on from it."""
    eval_pack: Path = Path("~/.athena/eval-pack")
    """Folder of the evaluation pack, or of packs that follow one another: the one in use at the seed block judges."""
    sealed_pack: Path | None = None
    """Folder of the sealed half of that pack, or of several such folders, where this validator holds it: its proxy
    models are measured on both, and `athena validator status` says who gains on the public half alone."""
    commit_read_blocks: Annotated[int, Field(ge=1)] = 25
    """Commitments are read at every multiple of this many blocks."""
    weight_blocks: Annotated[int, Field(ge=1)] = 360
    """Weights are set once in this many blocks: the subnet's tempo."""
    proxy_processes: Annotated[int, Field(ge=1)] = 2
    """Proxy models trained at a time, one single-threaded process each: at most one per core."""
    judge_cases: Annotated[int | None, Field(ge=1, le=64)] = None
    """Submissions judged at a time; by default one for every four cores, at most 8."""
    disk_gib: Annotated[float, Field(ge=1)] = 200.0
    """Most that datasets, and what was made to judge them, may take: beyond, those of the earliest settled submissions
    are removed, and with them the means to tell a late copy."""
    sheets_repository: Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")] = ""
    """Dataset repository on the hub (org/name) that the signed score sheets are published to; none by default."""
    known_releases: tuple[Path, ...] = ()
    """Filters of public releases, made by `athena judge known-release build`; submissions may not repeat these."""
    proxy_base: Path | None = None
    """The checkpoint that small WARC files are compared from, where the rule version names one."""

    @property
    def num_cases(self) -> int:
        return self.judge_cases or max(1, min(8, _cores() // 4))


class TrainerSettings(NodeSettings):
    """Train a model on the data that consensus pays for, evaluate it, publish a release."""

    state: Path = Path("~/.athena/trainer")
    """Folder of this node's durable state; a restart goes on from it."""
    eval_pack: Path = Path("~/.athena/eval-pack")
    """Folder of the evaluation pack that releases are measured with."""
    preset: str = "125m"
    """Model size: demo, tiny, 30m, 125m, 350m, 1b, 3b, 8b or 27b."""
    model_name: str = "athena"
    """Name of the released model."""
    namespace: str = "athena-network"
    """Hub user or organisation that releases are published under."""
    version: str = "0.1.0"
    """Semantic version of the first release; each one after it is a minor version above."""
    min_datasets: Annotated[int, Field(ge=1)] = 8
    """Training starts once this many accepted datasets are paid by consensus."""
    settle_blocks: Annotated[int, Field(ge=0)] = 720
    """Blocks to wait, after the last score came in, for consensus to pay by it."""
    look_blocks: Annotated[int, Field(ge=1)] = 25
    """Blocks between two looks at the scores."""
    epoch_blocks: Annotated[int, Field(ge=1)] = 360
    """The subnet's tempo: a miner's incentive is averaged over one look in each epoch since the last stage of data."""
    releases: Annotated[int, Field(ge=0)] = 0
    """Stop after this many releases; 0 goes on for ever."""
    branch_blocks: Annotated[int, Field(ge=0)] = 0
    """Blocks between two decay branches, which releases are made of; 0 cuts one at the end of each stage of data."""
    decay_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of a release's steps in which the learning rate falls to zero."""
    devices: str = "auto"
    """What runs may use: auto, cpu:2 (two runs at a time on the processor), or GPU indices as 0,1,2."""
    tracker: Literal["none", "trackio", "wandb", "mlflow"] = "none"
    """Where else the curves may be followed; its package is to be installed."""
    seed: int = 0
    """Seed of initial weights and data order."""


def _cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Settings = TypeVar("Settings", bound=BaseSettings)


def parse_settings(kind: type[Settings], program: str, arguments: list[str] | None = None) -> Settings:
    """Settings from flags and environment; `--help` prints every field and exits.

    Raises Misconfigured when a value is wrong or two contradict each other.
    """
    source: CliSettingsSource[Settings] = CliSettingsSource(
        kind, cli_parse_args=sys.argv[1:] if arguments is None else arguments, cli_prog_name=program
    )
    try:
        return kind(_cli_settings_source=source)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise Misconfigured(problems, remedy=f"see {program} --help") from error
