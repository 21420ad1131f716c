"""The nouns that all parts share, and the canonical bytes that are hashed and signed.

Every noun is frozen, refuses unknown fields, and has one canonical form: RFC 8785 JSON. What is signed, hashed or
compared is always those bytes, so two parties that agree on a value agree on every digest of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from athena.errors import BadInput

MAX_COMMITMENT_BYTES = 384  # three Raw128 fields of the commitments pallet
MAX_WARCS_PER_SHARD = 32
MAX_RIVALS_ON_SHEET = 64  # a sheet is posted and kept by others; a rival takes some 300 bytes of it
MAX_BITS_PER_BYTE = 64.0  # more than any model makes of any text: who adds effects up stays among finite numbers
ROW_FIELDS = (
    "text", "url", "date", "language", "language_score", "token_count",
    "warc_path", "warc_offset", "warc_length", "record_id", "payload_digest",
)  # fmt: skip


def _no_dots(path: str) -> str:
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("empty, '.' and '..' path segments are refused")
    return path


Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Hex40 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Hex64 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
BlockHash = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{64}$")]
Hotkey = Annotated[str, StringConstraints(pattern=r"^[1-9A-HJ-NP-Za-km-z]{46,48}$")]
CrawlId = Annotated[
    str, StringConstraints(pattern=r"^(CC-MAIN-\d{4}-\d{2}|CC-NEWS-\d{4}-\d{2}|LOCAL-[A-Za-z0-9-]{1,40})$")
]
RuleVersion = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,31}$")]
RelativePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9._=-][A-Za-z0-9._/=-]*$", max_length=300), AfterValidator(_no_dots)
]
WarcPath = RelativePath
Location = Annotated[
    str, StringConstraints(pattern=r"^(hf|file):[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$"), AfterValidator(_no_dots)
]


def canonical_json(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value. Raises BadInput for what JSON cannot hold (NaN, integers above 2^53)."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise BadInput(f"no canonical JSON form: {error}") from error


class Noun(BaseModel):
    """Base of the shared nouns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def canonical(self) -> bytes:
        """The bytes that are hashed and signed: RFC 8785 JSON of all fields."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """sha256 of the canonical bytes, 64 hex characters."""
        return hashlib.sha256(self.canonical()).hexdigest()


class Shard(Noun):
    """1 to 32 WARC files of one crawl, refined as one unit. The id derives from the content."""

    crawl: CrawlId
    warc_paths: Annotated[tuple[WarcPath, ...], Field(min_length=1, max_length=MAX_WARCS_PER_SHARD)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.warc_paths)) != len(self.warc_paths):
            raise ValueError("a WARC path appears twice in the shard")
        return self

    @property
    def id(self) -> str:
        return self.digest()[:32]


class Task(Noun):
    """A shard to be refined under one rule version. The id derives from the content, so a server cannot swap shards."""

    shard: Shard
    rule_version: RuleVersion
    opened_block: Annotated[int, Field(ge=0)]

    @property
    def id(self) -> str:
        return self.digest()[:32]


LeaseState = Literal["active", "submitted", "expired", "released"]


class Lease(Noun):
    """One miner's claim on one task. Time is the server's clock (UTC); deadlines are also given in blocks.

    `fencing` grows with every lease of the server: a submission carries it, so a lease that was reclaimed cannot
    submit. `issued_block` is the block whose hash drew the lease, as the miner's `draw_index`-th draw: the time factor
    counts from it.
    """

    id: Hex32
    task: Task
    hotkey: Hotkey
    state: LeaseState
    fencing: Annotated[int, Field(ge=1)]
    audit: bool = False
    draw_index: Annotated[int, Field(ge=0)] = 0
    issued_at: datetime
    heartbeat_at: datetime
    expires_at: datetime
    deadline_at: datetime
    issued_block: int
    deadline_block: int


class DatasetRef(Noun):
    """Where a dataset lies and what it must hash to: `location@revision#root`."""

    location: Location
    revision: Hex40
    root: Hex64

    def __str__(self) -> str:
        return f"{self.location}@{self.revision}#{self.root}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reverse of `str`. Raises BadInput."""
        location, _, rest = text.partition("@")
        revision, _, root = rest.partition("#")
        try:
            return cls(location=location, revision=revision, root=root)
        except ValueError as error:
            raise BadInput(f"bad dataset reference: {error}") from error

    @property
    def scheme(self) -> str:
        """The kind of hub that it lies on: hf or file."""
        return self.location.partition(":")[0]

    @property
    def repository(self) -> str:
        """Its `org/name` there."""
        return self.location.partition(":")[2]


_COMMITMENT = re.compile(
    r"ath1\|((?:hf|file):[A-Za-z0-9._-]+/[A-Za-z0-9._-]+)\|([0-9a-f]{40})\|([0-9a-f]{64})\|([0-9a-f]{32})"
    r"\|([1-9A-HJ-NP-Za-km-z]{46,48})"
)


class Commitment(Noun):
    """What a miner puts on chain: `ath1|location|revision|root|task id|hotkey`, at most 384 bytes."""

    dataset: DatasetRef
    task_id: Hex32
    hotkey: Hotkey

    def encode(self) -> str:
        d = self.dataset
        text = f"ath1|{d.location}|{d.revision}|{d.root}|{self.task_id}|{self.hotkey}"
        if len(text.encode()) > MAX_COMMITMENT_BYTES:
            raise BadInput(
                f"commitment of {len(text)} bytes, over {MAX_COMMITMENT_BYTES}", remedy="shorten the repository name"
            )
        return text

    @classmethod
    def parse(cls, text: str, *, signer: str) -> Self:
        """Strict: one regular expression over at most 384 bytes, before any I/O. Raises BadInput.

        `signer` is the hotkey whose extrinsic carried the text; a copied commitment names another and is refused.
        """
        if len(text) > MAX_COMMITMENT_BYTES:
            raise BadInput("commitment over 384 bytes")
        match = _COMMITMENT.fullmatch(text)
        if match is None:
            raise BadInput("not an ath1 commitment")
        location, revision, root, task_id, hotkey = match.groups()
        if hotkey != signer:
            raise BadInput("the commitment names another hotkey than its signer")
        try:
            ref = DatasetRef(location=location, revision=revision, root=root)
        except ValueError as error:
            raise BadInput(f"bad dataset reference: {error}") from error
        return cls(dataset=ref, task_id=task_id, hotkey=hotkey)


class FileEntry(Noun):
    path: RelativePath
    bytes: Annotated[int, Field(ge=0)]
    sha256: Hex64
    rows: Annotated[int, Field(ge=0)] | None = None


class RecipeRef(Noun):
    """Which recipe made a dataset: `hash` covers libraries, model files and thresholds."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.+-]{1,32}$")]
    hash: Hex64


class Manifest(Noun):
    """manifest.json of a dataset: written last, so that its existence proves the rest."""

    format: Literal["athena-dataset/1"] = "athena-dataset/1"
    task_id: Hex32
    hotkey: Hotkey
    rule_version: str
    recipe: RecipeRef
    files: Annotated[tuple[FileEntry, ...], Field(max_length=1024)]
    records: Annotated[int, Field(ge=0)]
    rows: Annotated[int, Field(ge=0)]
    rejected: dict[str, int]
    tokens: Annotated[int, Field(ge=0)]
    root: Hex64


class Submission(Noun):
    """What a miner reports to the task server once the dataset is published and committed to."""

    lease_id: Hex32
    fencing: int
    dataset: DatasetRef
    manifest: Manifest


Outcome = Literal["pass", "fail", "none"]


class Verdict(Noun):
    """One gate's answer. `none`: the validator could not tell (its own fault, or a service's); never lowers a score."""

    gate: str
    outcome: Outcome
    reason: str = ""
    evidence: dict[str, JsonValue] = {}


class Arm(Noun):
    """One proxy run: bits per byte on each evaluation domain."""

    name: str
    seed: Hex64
    tokens: int
    bits_per_byte: dict[str, float]


BitsPerByte = Annotated[float, Field(ge=0, le=MAX_BITS_PER_BYTE)]
Difference = Annotated[float, Field(ge=-MAX_BITS_PER_BYTE, le=MAX_BITS_PER_BYTE)]


class Effect(Noun):
    """Difference to the canonical refinement, bits per byte, positive is better, with a 95 % interval.

    `errors` is each domain's standard error over the choice of its evaluation documents.
    """

    mean: Difference
    low: Difference
    high: Difference
    by_domain: dict[str, Difference]
    errors: dict[str, BitsPerByte] = {}


class RivalRef(Noun):
    """Somebody else's earlier dataset, as committed to."""

    commitment: Commitment
    commit_block: int


class Basis(Noun):
    """What a sheet rests on beside its dataset and its blocks: with the crawl and the pack, enough to judge again.

    The shard with `opened_block` makes the task. `block_hash` seeds the draws, `reference_hash` those of the arms that
    all cases of the task share. `rivals` are the last of the `num_rivals` earlier datasets that the set was held
    against.
    """

    shard: Shard
    opened_block: Annotated[int, Field(ge=0)]
    deadline_block: int
    median_blocks: int | None
    block_hash: BlockHash
    reference_hash: BlockHash
    num_rivals: Annotated[int, Field(ge=0)] = 0
    rivals: Annotated[tuple[RivalRef, ...], Field(max_length=MAX_RIVALS_ON_SHEET)] = ()


class ScoreSheet(Noun):
    """Everything a validator found about one submission: enough for anyone to recompute the pay."""

    task_id: Hex32
    hotkey: Hotkey
    dataset: DatasetRef
    validator: Hotkey
    rule_version: str
    eval_pack: Hex64
    issued_block: int
    commit_block: int
    seed_block: int
    outcome: Outcome
    gates: tuple[Verdict, ...]
    arms: tuple[Arm, ...] = ()
    effect: Effect | None = None
    yield_ratio: float = 0.0
    time_factor: float = 0.0
    units: Annotated[float, Field(ge=0, le=MAX_WARCS_PER_SHARD)] = 0.0
    basis: Basis | None = None
    """Null on sheets of versions that did not say."""


class SignedSheet(Noun):
    """A score sheet and the validator's sr25519 signature (hex) over its canonical bytes."""

    sheet: ScoreSheet
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


class LineageEntry(Noun):
    """How many training tokens a release took from one dataset, by WARC file."""

    hotkey: Hotkey
    task_id: Hex32
    dataset: DatasetRef
    tokens: int
    documents: int
    tokens_by_warc: dict[str, int]


class Release(Noun):
    """release.json of a model: what it is, how good it is, and whose data it ate."""

    format: Literal["athena-release/1"] = "athena-release/1"
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
    files: tuple[FileEntry, ...]
    parameters: int
    training_tokens: int
    eval_pack: Hex64
    bits_per_byte_before: dict[str, float]
    bits_per_byte_after: dict[str, float]
    lineage: tuple[LineageEntry, ...]
    trainer: Hotkey


class SignedRelease(Noun):
    release: Release
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


def row_leaf(hotkey: str, row: Mapping[str, Any]) -> bytes:
    """Merkle leaf of one row: sha256(00 ‖ hotkey ‖ canonical JSON of the row without its minhash)."""
    body = canonical_json({name: row[name] for name in ROW_FIELDS})
    return hashlib.sha256(b"\x00" + hotkey.encode() + body).digest()


def merkle_root(leaves: Iterable[bytes]) -> str:
    """Root over leaves in file order, 64 hex characters.

    node = sha256(01 ‖ left ‖ right); an odd node is promoted unchanged; root = sha256(02 ‖ leaf count as u64
    big-endian ‖ top). The empty tree's top is 32 zero bytes. The prefixes keep a leaf from passing as a node
    (RFC 6962 §2.1), and the count keeps a promoted subtree from passing as the tree.
    """
    level = list(leaves)
    count = len(level)
    while len(level) > 1:
        level = list(_parents(level))
    top = level[0] if level else bytes(32)
    return hashlib.sha256(b"\x02" + count.to_bytes(8, "big") + top).hexdigest()


def _parents(level: list[bytes]) -> Iterator[bytes]:
    for i in range(0, len(level) - 1, 2):
        yield hashlib.sha256(b"\x01" + level[i] + level[i + 1]).digest()
    if len(level) % 2:
        yield level[-1]
