"""Releases on a hub: each tagged `v<version>`, beside them a repository with the signed journal that names them.

A hub is trusted with nothing: what a journal says is signed, and what a release holds has the digest that the journal
names.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from athena.durable import sha256_of
from athena.errors import BadInput, Conflict, NotFound
from athena.hub import Hub, Progress, unwatched
from athena.journal import JOURNAL, MAX_JOURNAL_BYTES, Verify, read_journal
from athena.protocol import Release, SignedRelease
from athena.registry import LATEST, HeadCommitment, Registry, SignedEntry, Standing, covered, replay
from athena.release import MANIFEST, check_signed, read_release, verify_release

MAX_RELEASE_BYTES = 128 * 2**30  # 27B parameters in float32
NAMESPACE = "athena-network"
"""Where a name without an owner lies."""
_REVISION = re.compile(r"[0-9a-f]{40}")


def publish_release(hub: Hub, folder: Path, name: str) -> str:
    """Publishes a release under `name` (org/name), tags it `v<version>`, returns the revision. Idempotent."""
    release = read_release(folder).release
    revision = hub.publish(folder, name, message=f"{release.name} {release.version}")
    hub.tag(name, revision, f"v{release.version}")
    return revision


def journal_repository(name: str) -> str:
    """The repository of the journal of `org/name`."""
    return f"{name}-journal"


def publish_journal(hub: Hub, journal: Path, name: str) -> str:
    """Publishes the file of a journal beside `name`; the revision. Idempotent."""
    with tempfile.TemporaryDirectory(prefix="athena-journal-") as aside:
        shutil.copyfile(journal, Path(aside) / JOURNAL)
        return hub.publish(Path(aside), journal_repository(name), message="journal")


def fetch_journal(hub: Hub, name: str) -> list[SignedEntry]:
    """The entries of the journal beside `name`, unverified. Raises NotFound, TooLarge, BadInput, Unavailable."""
    repository = journal_repository(name)
    revision = hub.resolve(repository, "main")
    with tempfile.TemporaryDirectory(prefix="athena-journal-") as aside:
        limit = MAX_JOURNAL_BYTES + 2**20  # and what a hub adds of its own, such as .gitattributes
        hub.fetch(repository, revision, Path(aside), max_bytes=limit, suffixes=(JOURNAL,))
        return read_journal(Path(aside) / JOURNAL)


def read_registry(entries: Sequence[SignedEntry], name: str, verify: Verify, *, trainer: str | None) -> Registry:
    """What the entries beside `org/name` come to, verified. Raises BadInput unless `trainer`, where given, owns them,
    and what `replay` raises."""
    registry = replay(name.rpartition("/")[2], entries, verify)
    if trainer is not None and registry.owner != trainer:
        raise BadInput(f"the journal of {name} is {registry.owner}'s, not {trainer}'s")
    return registry


def download_release(
    hub: Hub,
    name: str,
    revision: str,
    into: Path,
    verify: Verify,
    *,
    trainer: str | None = None,
    digest: str | None = None,
    max_bytes: int = MAX_RELEASE_BYTES,
    progress: Progress = unwatched,
) -> Release:
    """Fetches a revision of `name`, verifies it as `verify_release` does, and only then calls it `into`.

    After an interruption the same call goes on where it stopped. Raises Conflict if `into` exists, and what the hub and
    `verify_release` raise.
    """
    if into.exists():
        raise Conflict(f"{into} exists", remedy="check it with --verify, or choose another folder")
    partial = into.with_name(f".{into.name}.{revision[:12]}.part")
    hub.fetch(name, revision, partial, max_bytes=max_bytes, progress=progress)
    release = verify_release(partial, verify, trainer=trainer, digest=digest)
    partial.rename(into)
    return release


def fetch_part(
    hub: Hub, name: str, revision: str, into: Path, verify: Verify, *, digest: str | None, file: str, max_bytes: int
) -> SignedRelease:
    """release.json and one `file` of a release, verified, for who does not want the weights.

    Raises what the hub and `verify_release` raise.
    """
    hub.fetch(name, revision, into, max_bytes=max_bytes, suffixes=(MANIFEST, file))
    signed = read_release(into)
    check_signed(signed, verify, trainer=None, digest=digest)
    if not any((entry.path, entry.sha256) == (file, sha256_of(into / file)) for entry in signed.release.files):
        raise BadInput(f"{file} is not the file that was signed")
    return signed


@dataclass(frozen=True)
class Wanted:
    """A release that somebody asks for: `reference` is an alias, a version, or a revision of 40 hex digits.

    With a `trainer`, it has to be signed by that hotkey; with a `network`, its owner has to have committed to it there.
    """

    name: str
    reference: str
    trainer: str | None = None
    network: str = ""
    netuid: int = 1

    @classmethod
    def parse(cls, text: str, *, trainer: str | None = None, network: str = "", netuid: int = 1) -> Self:
        """`org/name@reference`; without an owner, the network's own namespace, without a reference, the latest."""
        name, _, reference = text.partition("@")
        full_name = name if "/" in name else f"{NAMESPACE}/{name}"
        return cls(full_name, reference or LATEST, trainer, network, netuid)

    @property
    def folder(self) -> Path:
        return Path(f"{self.name.rpartition('/')[2]}-{self.reference}")


def obtain(
    wanted: Wanted, hub_url: str, into: Path | None, *, again: bool, progress: Progress = unwatched
) -> tuple[Release, Path]:
    """The release, verified, and its folder. One that is there already is checked anew, where `again` asks for that.

    Raises NotFound; Conflict for a yanked release, a folder that exists or a journal that is not the one on chain;
    BadInput and Unauthorized for what is not what was signed.
    """
    from athena.chain.wallets import verify
    from athena.hub import open_hub

    hub, folder = open_hub(hub_url, kind="model"), into or wanted.folder
    if folder.exists() and not again:
        raise Conflict(f"{folder} exists", remedy="check it with --verify, or choose another folder")
    revision, digest = locate(hub, wanted, verify)
    if folder.exists():
        release = verify_release(folder, verify, trainer=wanted.trainer, digest=digest)
    else:
        release = download_release(
            hub, wanted.name, revision, folder, verify, trainer=wanted.trainer, digest=digest, progress=progress
        )  # fmt: skip
    return release, folder


def locate(hub: Hub, wanted: Wanted, verify: Verify) -> tuple[str, str | None]:
    """The revision of what is wanted, and the digest that its journal promises: null for a revision without one.

    Raises NotFound, Conflict for a yanked version, and what reading the journal and the chain raises.
    """
    is_revision = _REVISION.fullmatch(wanted.reference) is not None
    if is_revision and not wanted.network:
        return wanted.reference, None
    try:
        entries = fetch_journal(hub, wanted.name)
    except NotFound as error:
        raise NotFound(f"{wanted.name} has no journal on this hub", remedy="name a revision: name@<40 hex>") from error
    registry = read_registry(entries, wanted.name, verify, trainer=wanted.trainer)
    standing = _of_revision(registry, wanted.reference) if is_revision else registry.resolve(wanted.reference)
    if standing.revision is None or standing.location != f"{hub.scheme}:{wanted.name}":
        raise BadInput(f"the journal says that {standing.version} lies at {standing.location}, not at {wanted.name}")
    if wanted.network:
        require_commitment(_committed(wanted, registry.owner), entries, standing)
    return standing.revision, standing.release


def _of_revision(registry: Registry, revision: str) -> Standing:
    for standing in registry.standings.values():
        if standing.revision == revision:
            return standing
    raise NotFound(f"the journal of {registry.model} names no release of revision {revision}")


def _committed(wanted: Wanted, owner: str | None) -> str | None:
    """What the owner of a journal committed to last, null for nothing."""
    from athena.chain.client import Chain

    with closing(Chain(wanted.network, wanted.netuid)) as chain:
        committed = chain.commitments(chain.head().number)
    return next((c.text for c in committed if c.hotkey == owner), None)


def require_commitment(text: str | None, entries: Sequence[SignedEntry], standing: Standing) -> None:
    """Raises Conflict unless what the journal's owner committed to on chain covers the publishing of `standing`.

    Raises BadInput for a commitment to something else.
    """
    if text is None:
        raise Conflict("the trainer committed to nothing on chain", remedy="ask the trainer")
    known = covered(entries, HeadCommitment.parse(text))
    if ("publish", standing.release) not in {(signed.entry.action, signed.entry.release) for signed in known}:
        raise Conflict(f"{standing.version} is not committed to on chain yet", remedy="try again later")
