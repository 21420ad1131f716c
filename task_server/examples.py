"""Examples of the API's nouns for its OpenAPI document: made of the nouns themselves, so none can be invalid."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from athena.protocol import (
    Arm,
    Basis,
    DatasetRef,
    Effect,
    FileEntry,
    Lease,
    LineageEntry,
    Manifest,
    Noun,
    RecipeRef,
    Release,
    ScoreSheet,
    Shard,
    SignedRelease,
    SignedSheet,
    Submission,
    Task,
    Verdict,
)
from athena.registry import Entry, SignedEntry
from athena.wire import (
    AskOptOut,
    Ban,
    ClaimRequest,
    CrawlView,
    DatasetView,
    EventHead,
    Heartbeat,
    HeartbeatRequest,
    Leases,
    LedgerEvent,
    MinerView,
    OpenCrawl,
    OptOut,
    OptOuts,
    Receipt,
    ReleaseRequest,
    ReleaseView,
    ServerInfo,
    ShardView,
    Standing,
    Stats,
    SubmissionView,
    TaskView,
)

MINER = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
VALIDATOR = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
SERVER = "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y"
COLDKEY = "5DAAnrj7VHTznn2AWBemMuyBwZWs6FNFjdyVXUeYum3PTXFy"
CRAWL = "CC-MAIN-2026-43"
_START = datetime(2026, 11, 2, 12, tzinfo=UTC)
_SIGNATURE = "5e" * 64
_HASH = "8d" * 32

_SHARD = Shard(
    crawl=CRAWL,
    warc_paths=tuple(
        f"crawl-data/{CRAWL}/segments/1760000000000.{segment}/warc/CC-MAIN-20261013000000-20261013030000-{file}.warc.gz"
        for segment, file in (("17", "00041"), ("63", "00702"))
    ),
)
TASK = Task(shard=_SHARD, rule_version="1", opened_block=6_900_000)
LEASE = Lease(
    id="0d1f7a52e3b84c6699aa70b1c2d3e4f5",
    task=TASK,
    hotkey=MINER,
    state="active",
    fencing=1207,
    draw_index=0,
    issued_at=_START,
    heartbeat_at=_START,
    expires_at=_START + timedelta(minutes=5),
    deadline_at=_START + timedelta(hours=12),
    issued_block=6_900_123,
    deadline_block=6_903_723,
)
_DATASET = DatasetRef(location="hf:alice/athena-0d1f7a52", revision="4b" * 20, root="c3" * 32)
_MANIFEST = Manifest(
    task_id=TASK.id,
    hotkey=MINER,
    rule_version="1",
    recipe=RecipeRef(name="fineweb-1", version="1", hash="77" * 32),
    files=(FileEntry(path="data/00000.parquet", bytes=48_211_903, sha256="1a" * 32, rows=15_402),),
    records=58_310,
    rows=15_402,
    rejected={"language": 37_226, "duplicate": 5_682},
    tokens=9_874_331,
    root=_DATASET.root,
)
_SUBMITTED = SubmissionView(
    lease_id=LEASE.id,
    task_id=TASK.id,
    hotkey=MINER,
    submitted_at=_START + timedelta(hours=2),
    late=False,
    accepted=True,
    verdict="pass",
    records=_MANIFEST.records,
    rows=_MANIFEST.rows,
    tokens=_MANIFEST.tokens,
    dataset=_DATASET,
    manifest=_MANIFEST,
)
_SHEET = ScoreSheet(
    task_id=TASK.id,
    hotkey=MINER,
    dataset=_DATASET,
    validator=VALIDATOR,
    rule_version="1",
    eval_pack="e0" * 32,
    issued_block=LEASE.issued_block,
    commit_block=6_900_730,
    seed_block=6_903_760,
    outcome="pass",
    gates=(Verdict(gate="provenance", outcome="pass", evidence={"rows": 64, "exact": 64}),),
    arms=(Arm(name="miner", seed="51" * 32, tokens=2_000_000, bits_per_byte={"news": 1.31}),),
    effect=Effect(mean=0.004, low=0.001, high=0.007, by_domain={"news": 0.004}),
    yield_ratio=0.97,
    time_factor=0.99,
    units=1.92,
    basis=Basis(
        shard=_SHARD,
        opened_block=TASK.opened_block,
        deadline_block=LEASE.deadline_block,
        median_blocks=640,
        block_hash="0x" + "b7" * 32,
        reference_hash="0x" + "c4" * 32,
    ),
)
_RELEASE = Release(
    name="athena",
    version="1.4.0",
    files=(FileEntry(path="model.safetensors", bytes=2_471_645_608, sha256="9f" * 32),),
    parameters=1_235_814_400,
    training_tokens=31_000_000_000,
    eval_pack="e0" * 32,
    bits_per_byte_before={"news": 0.861},
    bits_per_byte_after={"news": 0.854},
    lineage=(
        LineageEntry(
            hotkey=MINER,
            task_id=TASK.id,
            dataset=_DATASET,
            tokens=9_102_544,
            documents=14_377,
            tokens_by_warc=dict.fromkeys(_SHARD.warc_paths, 4_551_272),
        ),
    ),
    trainer=SERVER,
)
_ENTRY = Entry(
    model=_RELEASE.name,
    number=42,
    previous="6b" * 32,
    at=_START + timedelta(days=30),
    by=SERVER,
    action="publish",
    version=_RELEASE.version,
    release=_RELEASE.digest(),
    location="hf:athena-network/athena",
    revision="4d" * 20,
)
_OPT_OUT = OptOut(domain="example.org", reason="asked by its owner", since_block=6_900_201)
_STATS = Stats(
    tasks=25_000,
    open_tasks=23_790,
    leases={"active": 96, "submitted": 1_071, "expired": 33, "released": 7},
    submissions=1_074,
    records=62_624_940,
    rows=16_541_748,
    tokens=10_605_031_494,
    sheets={"pass": 1_988, "fail": 51, "none": 12},
    releases=4,
    events=5_318,
)

EXAMPLES: Mapping[str, Noun] = {
    type(noun).__name__: noun
    for noun in (
        LEASE,
        Leases(leases=(LEASE,)),
        ClaimRequest(count=4),
        HeartbeatRequest(fencing=LEASE.fencing, progress={"records": 21_050}),
        Heartbeat(expires_at=LEASE.expires_at, cancel=False),
        ReleaseRequest(fencing=LEASE.fencing),
        Submission(lease_id=LEASE.id, fencing=LEASE.fencing, dataset=_DATASET, manifest=_MANIFEST),
        _SUBMITTED,
        DatasetView(
            dataset=_DATASET,
            task_id=TASK.id,
            hotkey=MINER,
            submitted_at=_SUBMITTED.submitted_at,
            verdict="pass",
            rows=_MANIFEST.rows,
            tokens=_MANIFEST.tokens,
        ),
        SignedSheet(sheet=_SHEET, signature=_SIGNATURE),
        SignedRelease(release=_RELEASE, signature=_SIGNATURE),
        SignedEntry(entry=_ENTRY, signature=_SIGNATURE),
        ReleaseView(
            trainer=SERVER,
            name=_RELEASE.name,
            version=_RELEASE.version,
            sha256=_RELEASE.digest(),
            state="released",
            aliases=("latest", "stable"),
            gate="better",
            location="hf:athena-network/athena",
            revision="4d" * 20,
            changed_at=_START + timedelta(days=30),
        ),
        Receipt(sha256=_SHEET.digest()),
        ServerInfo(
            hotkey=SERVER,
            netuid=1,
            rule_version="1",
            crawl=CRAWL,
            crawl_url="https://data.commoncrawl.org",
            replication=1,
            audit_share=0.1,
            lease_seconds=300.0,
            deadline_seconds=43_200.0,
        ),
        CrawlView(
            id=CRAWL,
            url="https://data.commoncrawl.org",
            name="October 2026 Index",
            state="open",
            failure=None,
            imported_at=_START - timedelta(days=1),
        ),
        ShardView(id=_SHARD.id, sequence=811, shard=_SHARD),
        TaskView(id=TASK.id, task=TASK, position=810, copies=2, open_slots=1, audited=False, closed=False),
        MinerView(
            hotkey=MINER,
            coldkey=COLDKEY,
            leases={"active": 4, "submitted": 61, "expired": 1, "released": 0},
            submissions=61,
            passed=58,
            failed=1,
            records=3_556_910,
            rows=939_522,
            tokens=602_334_191,
            quota=128,
            streak=23,
            ban=None,
        ),
        Standing(rank=1, hotkey=MINER, units=112.4, effect=0.0031, submissions=61, tokens=602_334_191),
        _STATS,
        _OPT_OUT,
        OptOuts(domains=(_OPT_OUT,)),
        LedgerEvent(
            sequence=5_318,
            at=1_793_620_800_000_000,
            kind="released",
            body={"task": TASK.id, "hotkey": MINER, "lease": LEASE.id, "fencing": LEASE.fencing},
            hash=_HASH,
        ),
        EventHead(sequence=_STATS.events, hash=_HASH),
        OpenCrawl(crawl=CRAWL, limit_warcs=1000),
        Ban(coldkey=COLDKEY, reason="submitted another miner's dataset"),
        AskOptOut(domain=_OPT_OUT.domain, reason=_OPT_OUT.reason),
    )
}
"""By the name of the noun."""
