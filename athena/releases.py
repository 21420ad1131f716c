"""The releases of one model: their folders, the journal of what was done with them, and the places that are told.

Whatever is done is written to the journal first; a hub, a task server and the chain are then told as much of it as they
do not know yet. The same call again goes on where it was broken off.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from athena.durable import write_file
from athena.errors import Conflict, Misconfigured, NotFound
from athena.evalpack import EvalPack
from athena.evaluation import MAX_EVALUATION_BYTES, Evaluation
from athena.hub import Hub
from athena.journal import Journal, Signer, Verify
from athena.protocol import SignedRelease
from athena.registry import SHIPS, HeadCommitment, Registry, Standing, version_key
from athena.release import (
    EVALUATION,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    cut_release,
    holds,
    read_release,
    signed_evaluation,
    verify_release,
)
from athena.release_hub import fetch_journal, fetch_part, publish_journal, publish_release
from athena.release_siblings import Kind, SignedSibling, make_sibling, publish_sibling, verify_sibling
from athena.train.folders import discard
from athena.train.trained import Trained

if TYPE_CHECKING:
    from athena.chain.client import Chain
    from athena.client import LedgerClient
    from athena.regression import Regression

STABLE = "stable"
MAX_REMARK = 500


@dataclass(frozen=True)
class Places:
    """Who is told of a release: a hub of models, under `namespace`; a task server and the chain where given."""

    hub: Hub
    namespace: str
    ledger: LedgerClient | None = None
    chain: Chain | None = None


class Releases:
    """The releases of `model` below `root`: `root/model/journal.jsonl`, and each version's folder beside it.

    Every verb that changes something raises Misconfigured without a signer, Conflict where the version is in the wrong
    state, and Unavailable when a place cannot be reached: what is in the journal by then is told the next time.
    """

    def __init__(self, root: Path, model: str, verify: Verify, signer: Signer | None = None) -> None:
        self.model = model
        self._folder = root / model
        self._journal = Journal(self._folder, model, verify)
        self._verify = verify
        self._optional_signer = signer

    def registry(self) -> Registry:
        return self._journal.registry()

    def folder_of(self, version: str) -> Path:
        return self._folder / version

    def cut(self, trained: Trained, version: str, places: Places | None = None) -> tuple[SignedRelease, Standing]:
        """Makes the release, and holds it against the one before it: a candidate, whatever the gate says of it.

        A version that nobody approved is cut anew from another model. The gate's findings lie in
        `<version>.regression.json` beside the release. Raises NotFound where the evaluation of the release before it
        is neither here nor at `places`.
        """
        signer = self._signer
        self._catch_up(places)
        folder = self.folder_of(version)
        standing = self.registry().standings.get(version)
        if (folder / MANIFEST).exists() and not holds(folder, trained):
            if self.is_taken(version):
                raise Conflict(f"{self.model} {version} is another model", remedy="raise the version")
            discard(folder)
        signed = cut_release(trained, name=self.model, version=version, signer=signer, into=folder)
        digest = signed.release.digest()
        if standing is None or standing.release != digest:
            self._journal.append(signer, "cut", version, digest)
        if self.standing(version).state == "draft":
            self._propose(signer, version, digest, trained.after, places)
        return signed, self.standing(version)

    def approve(self, version: str, reason: str = "") -> Standing:
        """Lets a candidate be published, by name; one that is not better than the release before it, for a reason."""
        standing = self.standing(version)
        if standing.state != "approved":
            self._journal.append(self._signer, "approve", version, standing.release, reason=reason)
        return self.standing(version)

    def publish(self, version: str, places: Places) -> Standing:
        """Publishes an approved release and tells everyone. Raises BadInput if its files are not what was cut."""
        standing = self.standing(version)
        if standing.state == "approved":
            folder = self.folder_of(version)
            verify_release(folder, self._verify, digest=standing.release)
            name = f"{places.namespace}/{self.model}"
            revision = publish_release(places.hub, folder, name)
            location = f"{places.hub.scheme}:{name}"
            self._journal.append(
                self._signer, "publish", version, standing.release, location=location, revision=revision
            )
        elif standing.state != "released":
            raise Conflict(f"{self.model} {version} is {standing.state}", remedy="approve it first")
        self.tell(places)
        return self.standing(version)

    def point(self, alias: str, version: str, places: Places) -> Standing:
        """Makes `alias` (stable, canary, …) name a released version."""
        standing = self.standing(version)
        if self.registry().aliases.get(alias) != version:
            self._journal.append(self._signer, "alias", version, standing.release, alias=alias)
        self.tell(places)
        return self.standing(version)

    def roll_back(self, alias: str, places: Places, *, to: str | None = None, reason: str = "") -> Standing:
        """Makes `alias` name the version that it named before, or `to`. Raises NotFound where there is none."""
        version = to or self.registry().before(alias)
        standing = self.standing(version)
        self._journal.append(self._signer, "alias", version, standing.release, alias=alias, reason=reason)
        self.tell(places)
        return self.standing(version)

    def yank(self, version: str, reason: str, places: Places) -> Standing:
        """Takes a release back for good: aliases fall back to what they named before, downloads refuse it."""
        standing = self.standing(version)
        if standing.state != "yanked":
            self._journal.append(self._signer, "yank", version, standing.release, reason=reason)
        self.tell(places)
        return self.standing(version)

    def ship(self, version: str, places: Places) -> Standing:
        """Approves, publishes and calls `stable` a release that the gate found better; any other is left a candidate.

        One that a person approved meanwhile is published, but no alias is moved.
        """
        standing = self.standing(version)
        good = standing.gate in SHIPS
        if standing.state == "candidate" and good:
            self.approve(version)
        if self.standing(version).state not in ("approved", "released"):
            return standing
        self.publish(version, places)
        pointed = any((s.entry.alias, s.entry.version) == (STABLE, version) for s in self._journal.entries())
        # Not a second time: a person may have rolled it back since.
        return self.point(STABLE, version, places) if good and not pointed else self.standing(version)

    def add_sibling(self, version: str, kind: Kind, pack: EvalPack, places: Places) -> SignedSibling:
        """Makes a sibling of a released version, in `<version>-<kind>` beside it, and publishes it.

        Raises as `make_sibling` does.
        """
        standing = self.standing(version)
        if standing.state != "released":
            raise Conflict(f"{self.model} {version} is {standing.state}", remedy="publish it first")
        folder = self._folder / f"{version}-{kind}"
        signed = make_sibling(self.folder_of(version), kind, pack, self._signer, folder)
        verify_sibling(folder, self._verify, release=standing.release)
        publish_sibling(places.hub, folder, f"{places.namespace}/{self.model}")
        return signed

    def standing(self, version: str) -> Standing:
        """Raises NotFound for a version that was never cut."""
        standing = self.registry().standings.get(version)
        if standing is None:
            raise NotFound(f"{self.model} {version} was never cut", remedy="see `athena release list`")
        return standing

    def is_taken(self, version: str) -> bool:
        """Whether the version is approved or out, so that no other model can be cut as it."""
        standing = self.registry().standings.get(version)
        return standing is not None and standing.state not in ("draft", "candidate")

    def tell(self, places: Places) -> None:
        """The hub, the task server and the chain, of all that they do not know yet."""
        name = f"{places.namespace}/{self.model}"
        self._catch_up(places)
        publish_journal(places.hub, self._journal.file, name)
        entries = self._journal.entries()
        if places.ledger is not None:
            known = sum(1 for _ in places.ledger.journal(entries[0].entry.by, self.model))
            for signed in entries[known:]:
                folder = self.folder_of(signed.entry.version)
                if signed.entry.action == "publish" and (folder / MANIFEST).exists():
                    places.ledger.post_release(read_release(folder))
                places.ledger.post_entry(signed)
        if places.chain is not None:
            text = HeadCommitment.of(entries).encode()
            own = (c for c in places.chain.commitments(places.chain.head().number) if c.hotkey == entries[0].entry.by)
            if text not in {committed.text for committed in own}:
                places.chain.commit(text, sealed=False)

    @property
    def _signer(self) -> Signer:
        if self._optional_signer is None:
            raise Misconfigured("this needs the trainer's wallet", remedy="name it with --wallet")
        return self._optional_signer

    def _catch_up(self, places: Places | None) -> None:
        """Goes on from the published journal where that is longer: the work may have moved to this machine."""
        if places is None:
            return
        try:
            published = fetch_journal(places.hub, f"{places.namespace}/{self.model}")
        except NotFound:
            return
        self._journal.adopt(published)

    def _propose(self, signer: Signer, version: str, digest: str, candidate: Evaluation, places: Places | None) -> None:
        from athena.regression import compare  # numpy

        before = self._before(version)
        if before is None:
            self._journal.append(signer, "propose", version, digest, gate="first")
            return
        found: Regression = compare(self._evaluation_of(before, places), candidate)
        write_file(self._folder / f"{version}.regression.json", found.canonical())
        reason = "; ".join(found.reasons)[:MAX_REMARK]
        self._journal.append(
            signer, "propose", version, digest, gate=found.verdict, against=before.version, reason=reason
        )

    def _before(self, version: str) -> Standing | None:
        """The released version that comes before, or else the first of all."""
        released = self.registry().released
        older = [standing for standing in released if standing.key < version_key(version)]
        return older[0] if older else (released[-1] if released else None)

    def _evaluation_of(self, standing: Standing, places: Places | None) -> Evaluation:
        folder = self.folder_of(standing.version)
        if (folder / MANIFEST).exists():
            return signed_evaluation(folder)
        if places is None or standing.revision is None:
            raise NotFound(f"the release {standing.version} is not here", remedy="name the hub that it lies on")
        with tempfile.TemporaryDirectory(prefix="athena-release-") as aside:
            fetch_part(
                places.hub, f"{places.namespace}/{self.model}", standing.revision, Path(aside), self._verify,
                digest=standing.release, file=EVALUATION, max_bytes=MAX_MANIFEST_BYTES + MAX_EVALUATION_BYTES,
            )  # fmt: skip
            return signed_evaluation(Path(aside))
